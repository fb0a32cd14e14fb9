"""Several worker processes on one port, joined by mesh frames over unix sockets; and their parent.

Each worker is a whole relay with the same key. It watches the others as a mesh peer would, so that
two clients on different workers reach each other: no second routing scheme. Clients and other
relays see one relay (tests/relay/core/test_workers.py compares them with one process). The sockets
are in a folder of their own that only this user enters. The parent keeps the workers running.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relay.core.handshake import make_private_key
from relay.log import Log
from relay.systemd import Notifier

SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD})
RESTART_S: Final = 1.0  # a worker that died is started again after this long
FRESH_S: Final = 10.0  # a worker that has not written its figures for so long hangs
LOG: Final = Log("workers")
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class Worker:
    """One worker's number and folder, and its proof to the others that it is one of them."""

    number: int
    count: int
    folder: Path
    secret: bytes
    private_key: bytes

    @property
    def others(self) -> list[int]:
        """Return the other workers' numbers."""
        return [number for number in range(self.count) if number != self.number]

    def socket_path(self, number: int) -> str:
        """Return where a worker listens for the others."""
        return str(self.folder / f"{number}.sock")

    def stats_path(self, number: int) -> Path:
        """Return where a worker writes its figures."""
        return self.folder / f"{number}.json"


def supervise(
    count: int, work: Callable[[Worker, Callable[[], None]], None], notifier: Notifier, watchdog_s: float
) -> int:
    """Run `count` workers until a signal ends them. Those that die are started again.

    Returns the exit code. `work(worker, ready)` runs in a process of its own and calls `ready` when
    it listens. A worker that cannot start ends all.
    """
    import shutil  # noqa: PLC0415  2 ms of each start, and most relays have one worker
    import tempfile  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="derp-relay-"))
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return _Supervisor(count, work, folder, notifier, watchdog_s).run()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Supervisor:
    """The parent of the workers."""

    count: int
    work: Callable[[Worker, Callable[[], None]], None]
    folder: Path
    notifier: Notifier
    watchdog_s: float

    def __post_init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._running: dict[int, int] = {}  # process id -> number
        self._due: dict[int, float] = {}  # number -> when to start it again
        self._stopping = False
        self._reader, self._writer = os.pipe()

    def run(self) -> int:
        for number in range(self.count):
            self._start(number)
        os.close(self._writer)
        self._writer = -1  # a worker that is started again need not report
        started = b""
        while len(started) < self.count and (more := os.read(self._reader, self.count)):
            started += more
        failed = len(started) < self.count
        if failed:
            LOG.error("a worker could not start, so none does", ready=len(started), wanted=self.count)
            self._stop(signal.SIGTERM)
        else:
            self.notifier.ready(f"{self.count} workers")
        os.close(self._reader)
        while self._running or self._due:
            self._wait()
        return int(failed)

    def _start(self, number: int) -> None:
        worker = Worker(number, self.count, self.folder, self._secret, make_private_key())
        sys.stdout.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._running[pid] = number
            return
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            _follow(parent)
            self.work(worker, self._report_ready)
            code = 0
        except SystemExit as leave:
            sys.stderr.write(f"{leave.code}\n")
        finally:
            os._exit(code)

    def _report_ready(self) -> None:
        """Report to the parent, from a worker, that it listens."""
        if self._writer >= 0:
            os.write(self._writer, b"1")
            os.close(self._writer)

    def _wait(self) -> None:
        """Wait for a signal, the next worker restart, or the next watchdog notification.

        Return after whichever is first.
        """
        waits = [due - time.monotonic() for due in self._due.values()]
        waits += [self.watchdog_s] if self.watchdog_s else []
        info = signal.sigtimedwait(SIGNALS, max(0.0, min(waits, default=3600.0)))
        number = info.si_signo if info else 0
        if number in (signal.SIGTERM, signal.SIGINT):
            self.notifier.stopping("draining")
            self._stop(signal.SIGTERM)
        elif number == signal.SIGHUP:
            self._send(signal.SIGHUP)
        self._reap()
        for worker in [worker for worker, due in self._due.items() if due <= time.monotonic()]:
            del self._due[worker]
            self._start(worker)
        if self.watchdog_s and self._all_fresh():
            self.notifier.alive()

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        self._due.clear()
        self._send(number)

    def _send(self, number: signal.Signals) -> None:
        for pid in self._running:
            os.kill(pid, number)

    def _reap(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._running.pop(pid)
            if not self._stopping:
                LOG.error(
                    "a worker died and is started again",
                    worker=number,
                    status=os.waitstatus_to_exitcode(status),
                )
                self._due[number] = time.monotonic() + RESTART_S

    def _all_fresh(self) -> bool:
        """Whether every worker has written its figures lately."""
        oldest = time.time() - FRESH_S
        paths = [self.folder / f"{number}.json" for number in range(self.count)]
        return all(path.exists() and path.stat().st_mtime > oldest for path in paths)


def _follow(parent: int) -> None:
    """End as by SIGTERM when the parent ends: see prctl(2).

    Raises SystemExit if it has ended already.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("relay: the process that started this worker is gone")
