"""The agent run for real, on any Python: its boot line in a shell on a stage, its two streams as
pipes instead of an SSH channel.

Everything else is the engine's own: `converge` with its session and plan. `systemctl`, `apt-get`
and `dpkg-query` of the stage are small fakes (`fakes/`) that keep their state in files and log
their argv; users, groups, files, kernel settings and nftables are real.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine import boot, session
from engine.facts import Ask
from engine.login import Login, Unreachable
from engine.plan import Mode
from engine.resource import Resource
from engine.run import NOTHING, Job, Outcome, converge
from inventory.model import Ssh
from tests.support.jobs import fixed
from tests.support.sshd import Sshd

FAKES = Path(__file__).parent / "fakes"
WRITTEN = (
    "etc/relay", "etc/relay.nft", "etc/sysctl.d", "etc/systemd", "etc/passwd", "etc/group", "srv",
    "var/lib/derpfleet", "var/fake",
)
LOOKED_AT = ("etc", "srv", "var/lib/derpfleet", "var/fake")
HISTORY = ("var/lib/derpfleet/journal/", "var/lib/derpfleet/backups/")

# Modules that a test adds to the agent's own, run just before `main`. They end the agent as a power
# cut would.
DIE_AFTER_RESULT = """
import os
from agent import wire
send, left = wire.Wire.send, [%d]
def send_and_die(self, event, **fields):
    send(self, event, **fields)
    left[0] -= event == "result"
    if event == "result" and left[0] == 0:
        os.kill(os.getpid(), 9)
wire.Wire.send = send_and_die
"""
_COUNT_STEPS = """
import os, sys
calls = "rename remove mkdir rmdir symlink chmod chown".split()
names = {"open", "subprocess.Popen"} | {"os." + name for name in calls}
left = [%d]
def hook(name, arguments):
    left[0] -= name in names and not (name == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR))
    if left[0] == 0:
        left[0] = -1  # the kill is an event too
        os.kill(os.getpid(), 9)
"""
DIE_AT_STEP = _COUNT_STEPS + "sys.addaudithook(hook)\n"


def _die_at_step_of(name: str) -> str:
    """Return the module whose count begins with the call of that function of `agent.armed`."""
    return f"""{_COUNT_STEPS}
from agent import armed
real = armed.{name}
def counted(*arguments):
    sys.addaudithook(hook)
    return real(*arguments)
armed.{name} = counted
"""


DIE_AT_STEP_OF_GOING_BACK = _die_at_step_of("go_back")
DIE_AT_STEP_OF_KEEPING = _die_at_step_of("keep")
DIE_WHILE_ARMED = """
import os
from agent import armed
armed._word = lambda *arguments: os.kill(os.getpid(), 9)
"""


@dataclass
class Agent:
    """Runs of the agent on one stage with one Python.

    `extra` is the source of a module that is added to the next runs' agent.
    """

    stage: Sshd
    python: str
    runs: Path
    extra: str = ""
    way_in: bool = True  # whether a second connection gets through, when the agent wants one

    def run(
        self,
        resources: Iterable[Resource],
        *,
        mode: Mode = "apply",
        ask: Ask = NOTHING,
        only: Sequence[str] = (),
        **more: Any,
    ) -> Outcome:
        """Run one converge. Raises what `run_job` raises."""
        return self.run_job(fixed(resources, ask=ask, mode=mode, only=only), **more)

    def run_job(self, job: Job, **more: Any) -> Outcome:
        """Run a job. Raises what `converge` raises; Unreachable when the agent died."""
        ssh, nowhere = Ssh(python=self.python, user="root"), Path("/dev/null")
        login = Login("hk1", ssh, address="stage", known_hosts=nowhere, base=Path("/"))
        with self._connected(login):
            return converge(login, job, runs=self.runs, **more)

    def dies(self, resources: Iterable[Resource], extra: str) -> bool:
        """Run once with that module added. Return whether the agent died of it."""
        self.extra = extra
        try:
            self.run(resources)
        except Unreachable:
            return True
        finally:
            self.extra = ""
        return False

    def tree(self) -> dict[str, str]:
        """Return type, mode, owner and content by path, where the tests' plans write.

        The journal's history is left out.
        """
        return {
            path: content_of(self.stage.root / path)
            for path in self._paths(WRITTEN)
            if not path.startswith(HISTORY)
        }

    def stamps(self) -> dict[str, tuple[int, int, int]]:
        """Return when each path was last written, in a wider round.

        Equal stamps mean that nothing was touched. The journal's history is left out.
        """
        stats = {
            path: (self.stage.root / path).lstat()
            for path in self._paths(LOOKED_AT)
            if not path.startswith("var/lib/derpfleet")
        }
        return {path: (info.st_ino, info.st_ctime_ns, info.st_size) for path, info in stats.items()}

    def _paths(self, folders: Iterable[str]) -> list[str]:
        root = self.stage.root
        found = [
            path
            for folder in folders
            for path in ((root / folder), *(root / folder).rglob("*"))
            if path.exists() or path.is_symlink()
        ]
        return [str(path.relative_to(root)) for path in found if not str(path).endswith("var/fake/log")]

    def log(self) -> list[str]:
        """Return the calls of the fakes since the last `forget`, without those that only read."""
        path = self.stage.root / "var/fake/log"
        return path.read_text().splitlines() if path.exists() else []

    def forget(self) -> None:
        """Empty the log of calls."""
        (self.stage.root / "var/fake/log").write_text("")

    @contextmanager
    def _connected(self, login: Login) -> Iterator[None]:
        pipes: list[Pipe] = []

        def connect(_: Login) -> Pipe:
            pipes.append(Pipe(self.stage, self.python, payload_with(self.extra)))
            return pipes[-1]

        def run_once(_: Login, argv: list[str]) -> tuple[int, str]:
            if not self.way_in:
                raise Unreachable("no connection")
            done = self.stage.run(*argv)
            return done.returncode, done.stdout + done.stderr

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "AgentChannel", connect)
            patch.setattr(session, "run_once", run_once)
            try:
                yield
            finally:
                for pipe in pipes:
                    pipe.close()


class Pipe:
    """A stand-in for `engine.transport.AgentChannel`, over pipes."""

    def __init__(self, stage: Sshd, python: str, payload: bytes) -> None:
        command = boot.boot_command(python=python, sudo=False, prompt="", ask_password=False)
        environment = [
            "env",
            "-i",
            "PATH=/var/fake/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
        ]
        argv = [*stage.enter, *environment, "sh", "-c", command]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        assert self._process.stdin and self._process.stdout
        self._in, self._out = self._process.stdin, self._process.stdout
        first = self._out.readline().decode().strip()
        if first != boot.READY:
            words = self.last_words()
            self.close()
            raise AssertionError(f"{python} is not ready: {first!r} {words}")
        self.send(payload)

    def send(self, data: bytes) -> None:
        try:
            self._in.write(data)
            self._in.flush()
        except BrokenPipeError as error:
            raise Unreachable("the agent is gone") from error

    def read_line(self) -> bytes:
        return self._out.readline()

    def last_words(self) -> str:
        self._process.wait(5)
        self._errors.seek(0)
        return "" if self._process.returncode in (-9, 137) else self._errors.read().decode()

    def close(self) -> None:
        for stream in (self._in, self._out):
            with suppress(BrokenPipeError):
                stream.close()
        self._process.wait(10)
        self._errors.close()


def payload_with(extra: str) -> bytes:
    """Return the agent's payload, with one more module before the last."""
    _, packed = boot.agent_payload().split(b"\n", 1)
    modules = json.loads(zlib.decompress(packed))
    modules.insert(-1, ["agent.extra", extra])
    packed = zlib.compress(json.dumps(modules).encode())
    return b"%d\n" % len(packed) + packed


def fakes() -> dict[str, str]:
    """Return the stage's fake programs, by path."""
    return {f"/var/fake/bin/{path.name}": path.read_text() for path in FAKES.iterdir()}


def content_of(path: Path) -> str:
    """Return type, mode, owner, and the hash or the target of what is at this path."""
    info = path.lstat()
    content = str(path.readlink()) if path.is_symlink() else ""
    if path.is_file() and not content:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{info.st_mode:o} {info.st_uid}:{info.st_gid} {content}"


@contextmanager
def at_work(agent: Agent, program: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python program on the stage, once it has printed a line. It ends with its input."""
    argv = [*agent.stage.enter, "/usr/bin/python3", "-c", program, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"at work\n"
        yield process
        process.stdin.close()


OnStage = Callable[..., Agent]


def failure(outcome: Outcome) -> tuple[str, str, str]:
    """Return id, what and why of the only failure."""
    (only,) = outcome.failures
    return only.id, only.what, only.why
