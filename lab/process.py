"""The lab's processes. The process table is their record: each carries its lab and its name in its environment.

So a process is known from the moment that it exists, no number is ever taken for another process's, and what a crashed lab
left behind is found by its own mark.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from lab.errors import LabError

T = TypeVar("T")
START_TIMEOUT_S = 5.0
WITH_US = ("setpriv", "--pdeathsig", "TERM", "--")
MARK = "DERPFLEET_LAB_PROCESS"


def execute(
    argv: Sequence[str],
    *,
    input: str | None = None,
    timeout_s: float = 60,
    check: bool = True,
    what: str = "",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises LabError `what` when it does not end in time and, with `check`, when it fails.

    It dies with us: a command whose lab was killed writes nothing into the next one.
    """
    what = what or f"{Path(argv[0]).name} failed"
    try:
        done = subprocess.run(
            [*WITH_US, *argv], input=input, timeout=timeout_s, env=environment, cwd=cwd, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise LabError(what, where=shlex.join(argv), why=f"it did not end within {timeout_s:g} s") from None
    if check and done.returncode != 0:
        raise LabError(what, where=shlex.join(argv), why=(done.stderr.strip() or done.stdout.strip())[-800:])
    return done


def run(argv: Sequence[str], *, input: str | None = None, timeout_s: float = 60, what: str = "") -> str:
    """Standard output of a command that must succeed."""
    return execute(argv, input=input, timeout_s=timeout_s, what=what).stdout


def wait_for(find: Callable[[], T | None], *, timeout_s: float, what: str, why: Callable[[], str] = lambda: "") -> T:
    """The first truthy answer of `find`, asked every 20 ms. Raises LabError `what` after the timeout."""
    deadline = time.monotonic() + timeout_s
    while not (found := find()):
        if time.monotonic() > deadline:
            raise LabError(what, why=why() or f"not within {timeout_s:g} s")
        time.sleep(0.02)
    return found


class Processes:
    """The processes of one lab; `owner` is its folder, `logs` where their output goes."""

    def __init__(self, owner: Path, logs: Path) -> None:
        self.owner = owner
        self.logs = logs

    def start(self, name: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
        """Start `argv`, which must not fork away, in a session of its own. Its pid. Raises LabError with its output when it ends at once.

        Output is appended to `<logs>/<name>.log`; `environment` replaces ours.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", *argv], env={**(os.environ if environment is None else environment), MARK: self._mark(name)}, cwd=cwd,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=10,
            )  # fmt: skip
        return wait_for(lambda: self.pid(name), timeout_s=START_TIMEOUT_S, what=f"{name} ended at once", why=lambda: self.tail(name))

    def pid(self, name: str) -> int | None:
        """The process of that name: the first of its kind, should it have children."""
        return min(self._marked(self._mark(name), whole=True), default=None)

    def container(self, name: str) -> int | None:
        """The pid, seen from here, of process 1 of the container that `name` runs."""
        supervisors = {str(pid) for pid in self._marked(self._mark(name), whole=True)}
        for folder in Path("/proc").iterdir() if supervisors else ():
            if not folder.name.isdigit():
                continue
            try:
                status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            except OSError:
                continue
            numbers = status.get("NSpid", "").split()
            if status.get("PPid", "").strip() in supervisors and len(numbers) > 1 and numbers[-1] == "1":
                return int(folder.name)
        return None

    def names(self) -> set[str]:
        """The names of all processes that run."""
        prefix = self._mark("")
        return {
            mark.removeprefix(prefix) for pid in self._marked(prefix, whole=False) if (mark := _mark_of(pid)) and mark.startswith(prefix)
        }

    def stop(self, name: str, *, grace_s: float = 3) -> None:
        """SIGTERM, and SIGKILL after the grace."""
        self._end(lambda: self._marked(self._mark(name), whole=True), grace_s)

    def stop_all(self) -> None:
        """SIGKILL to everything that carries this lab's mark."""
        self._end(lambda: self._marked(self._mark(""), whole=False), 0)

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """The last lines of that output."""
        try:
            return self.log(name).read_text(errors="replace").strip()[-800:]
        except OSError:
            return ""

    def _mark(self, name: str) -> str:
        return f"{self.owner}#{name}"

    def _marked(self, mark: str, *, whole: bool) -> Iterator[int]:
        wanted = f"\0{MARK}={mark}".encode() + (b"\0" if whole else b"")
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and wanted in _environment(folder):
                yield int(folder.name)

    def _end(self, find: Callable[[], Iterator[int]], grace_s: float) -> None:
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            if patience_s == 0:
                continue
            deadline = time.monotonic() + patience_s
            while pids := list(find()):
                for pid in pids:
                    _signal(pid, number)
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _environment(folder: Path) -> bytes:
    """Empty for a process that has ended, zombies included."""
    try:
        return b"\0" + (folder / "environ").read_bytes()
    except OSError:
        return b""


def _mark_of(pid: int) -> str:
    for entry in _environment(Path("/proc") / str(pid)).split(b"\0"):
        if entry.startswith(MARK.encode() + b"="):
            return entry.decode().partition("=")[2]
    return ""
