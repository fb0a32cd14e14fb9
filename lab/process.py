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
    """The first truthy answer of `find`, asked every 20 ms at first, later every 0.2 s. Raises LabError `what` after the timeout."""
    deadline, pause_s = time.monotonic() + timeout_s, 0.02
    while not (found := find()):
        if time.monotonic() > deadline:
            raise LabError(what, why=why() or f"not within {timeout_s:g} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, 0.2)
    return found


class Processes:
    """The processes of one lab; `owner` is its folder, `logs` where their output goes."""

    def __init__(self, owner: Path, logs: Path) -> None:
        self.owner = owner
        self.logs = logs
        self._known: dict[str, int] = {}

    def start(self, name: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
        """Start `argv`, which must not fork away, in a session of its own. Its pid. Raises LabError with its output when it is never seen.

        Output is appended to `<logs>/<name>.log`; `environment` replaces ours. One of that name that runs already is ended first.
        """
        self.stop(name)
        self.logs.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", *argv], env={**(os.environ if environment is None else environment), MARK: self._mark(name)}, cwd=cwd,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=10,
            )  # fmt: skip
        return wait_for(lambda: self.pid(name), timeout_s=START_TIMEOUT_S, what=f"{name} ended at once", why=lambda: self.tail(name))

    def pid(self, name: str) -> int | None:
        """The process of that name: the first of its kind, should it have children."""
        mark, known = self._mark(name), self._known.get(name)
        if known is not None and _mark_of(known) == mark:
            return known
        found = min(self._marked(lambda carried: carried == mark), default=None)
        if found is not None:
            self._known[name] = found
        return found

    def container(self, name: str) -> int | None:
        """The pid, seen from here, of process 1 of the container that `name` runs."""
        below = [] if (supervisor := self.pid(name)) is None else _children(supervisor)
        while below:
            child = below.pop()
            numbers = _pids_of(child)  # one for each pid namespace, from ours inwards
            if len(numbers) > 1 and numbers[-1] == 1:
                return child
            below += _children(child)
        return None

    def names(self) -> set[str]:
        """The names of all processes that run."""
        prefix = self._mark("")
        return {_mark_of(pid).removeprefix(prefix) for pid in self._marked(lambda carried: carried.startswith(prefix))} - {""}

    def stop(self, name: str, *, grace_s: float = 3) -> None:
        """SIGTERM, and SIGKILL after the grace."""
        self._end(lambda carried: carried == self._mark(name), grace_s)

    def stop_all(self) -> None:
        """SIGKILL to everything that carries this lab's mark."""
        self._end(lambda carried: carried.startswith(self._mark("")), 0)

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
    """The mark that a process carries, "" for none; a process that has ended carries none, zombies included."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    prefix = f"{MARK}=".encode()
    return next((entry.removeprefix(prefix).decode() for entry in environment if entry.startswith(prefix)), "")


def _children(pid: int) -> list[int]:
    try:
        return [int(number) for task in Path(f"/proc/{pid}/task").iterdir() for number in (task / "children").read_text().split()]
    except OSError:
        return []


def _pids_of(pid: int) -> list[int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return []
    return next(([int(number) for number in line.split()[1:]] for line in lines if line.startswith("NSpid:")), [])
