"""The lab's processes.

The process table is their record: each carries its lab and its name in its environment.

So a process is known from the moment that it exists, no number is ever taken for another process's,
and the remains of a crashed lab are found by their mark.
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

import artefacts.process
from lab.errors import LabError

T = TypeVar("T")
START_TIMEOUT_S = 5.0
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
    """Run a command to its end.

    Raises LabError `what` when it does not end in time and, with `check`, when it fails.

    It ends with this process: a command whose lab was killed writes nothing into the next lab.
    """
    what = what or f"{Path(argv[0]).name} failed"
    done = artefacts.process.execute(
        argv, error=LabError, what=what, timeout_s=timeout_s, input=input, environment=environment, cwd=cwd
    )
    if check and done.returncode != 0:
        raise LabError(what, where=shlex.join(argv), why=(done.stderr.strip() or done.stdout.strip())[-800:])
    return done


def run(argv: Sequence[str], *, input: str | None = None, timeout_s: float = 60, what: str = "") -> str:
    """Return the standard output of a command that must succeed."""
    return execute(argv, input=input, timeout_s=timeout_s, what=what).stdout


def wait_for(
    find: Callable[[], T | None], *, timeout_s: float, what: str, why: Callable[[], str] = lambda: ""
) -> T:
    """Wait for the first truthy answer of `find` and return it.

    Raises LabError `what` after the timeout.

    It asks every 20 ms at first, later every 0.2 s.
    """
    deadline, pause_s = time.monotonic() + timeout_s, 0.02
    while not (found := find()):
        if time.monotonic() > deadline:
            raise LabError(what, why=why() or f"not within {timeout_s:g} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, 0.2)
    return found


class Processes:
    """The processes of one lab; `owner` is its folder, `logs` the folder for their output."""

    def __init__(self, owner: Path, logs: Path) -> None:
        self.owner = owner
        self.logs = logs
        self._known: dict[str, int] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> int:
        """Start `argv`, which must not fork away, in its own session; return its pid.

        Output is appended to `<logs>/<name>.log`; `environment` replaces this process's. A running
        process of that name is ended first. Raises LabError with its output when it is never seen.
        """
        self.stop(name)
        self.logs.mkdir(parents=True, exist_ok=True)
        env = {**(os.environ if environment is None else environment), MARK: self._mark(name)}
        with self.log(name).open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", *argv],
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=True,
                timeout=10,
            )
        return wait_for(
            lambda: self._executed(name),
            timeout_s=START_TIMEOUT_S,
            what=f"{name} ended at once",
            why=lambda: self.tail(name),
        )

    def _executed(self, name: str) -> int | None:
        """Return the process of that name, once setsid has given way to its program.

        At that moment its environment, and so its mark, is empty.
        """
        pid = self.pid(name)
        return None if pid is None or _program_of(pid) == "setsid" else self.pid(name)

    def pid(self, name: str) -> int | None:
        """Return the process of that name, not one of its children; None if there is none."""
        mark, known = self._mark(name), self._known.get(name)
        if known is not None and _mark_of(known) == mark:
            return known
        found = min(self._marked(lambda carried: carried == mark), default=None)
        if found is not None:
            self._known[name] = found
        return found

    def container(self, name: str) -> int | None:
        """Return the pid, as seen from here, of process 1 of the container that `name` runs."""
        below = [] if (supervisor := self.pid(name)) is None else _children(supervisor)
        while below:
            child = below.pop()
            numbers = _pids_of(child)  # one for each pid namespace, from ours inwards
            if len(numbers) > 1 and numbers[-1] == 1:
                return child
            below += _children(child)
        return None

    def names(self) -> set[str]:
        """Return the names of all running processes."""
        prefix = self._mark("")
        return {
            _mark_of(pid).removeprefix(prefix)
            for pid in self._marked(lambda carried: carried.startswith(prefix))
        } - {""}

    def stop(self, name: str, *, grace_s: float = 3) -> None:
        """Send SIGTERM, and SIGKILL after the grace."""
        self._end(lambda carried: carried == self._mark(name), grace_s)

    def stop_all(self) -> None:
        """Send SIGKILL to everything that carries this lab's mark."""
        self._end(lambda carried: carried.startswith(self._mark("")), 0)

    def log(self, name: str) -> Path:
        """Return the log file of `name`."""
        return self.logs / f"{name}.log"

    def tail(self, name: str) -> str:
        """Return the end of the output of `name`."""
        try:
            return self.log(name).read_text(errors="replace").strip()[-800:]
        except OSError:
            return ""

    def _mark(self, name: str) -> str:
        return f"{self.owner}#{name}"

    @staticmethod
    def _marked(wanted: Callable[[str], bool]) -> Iterator[int]:
        pids = (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        return (pid for pid in pids if (carried := _mark_of(pid)) and wanted(carried))

    def _end(self, wanted: Callable[[str], bool], grace_s: float) -> None:
        for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 10.0)):
            deadline = time.monotonic() + patience_s
            while patience_s and (pids := list(self._marked(wanted))):
                for pid in pids:
                    kill(pid, number)
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal, if the process is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _mark_of(pid: int) -> str:
    """Return the mark that a process carries, "" for none.

    A process that has ended carries none, zombies included.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = f"{MARK}=".encode()
    return next(
        (entry.removeprefix(prefix).decode() for entry in environment if entry.startswith(prefix)), ""
    )


def _program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    try:
        return [
            int(number)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for number in (task / "children").read_text().split()
        ]
    except OSError:
        return []


def _pids_of(pid: int) -> list[int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return []
    return next(
        ([int(number) for number in line.split()[1:]] for line in lines if line.startswith("NSpid:")), []
    )
