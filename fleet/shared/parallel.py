"""Run work for several hosts at once. Ctrl-C stops all of it after the resource in hand.

SIGTERM does the same (`fleet.shared.interrupt`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from engine.report import Report
from engine.session import Session, Stopped
from fleet.shared import interrupt
from fleet.shared.errors import Interrupted
from inventory.errors import DerpfleetError

T = TypeVar("T")
PARALLEL = 16


class Parallel:
    """The work of one command and its sessions, which Ctrl-C has to stop."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._sessions: list[Session] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def watch(self, session: Session) -> None:
        """Register a session that Ctrl-C has to stop. Those that are closed are let go of."""
        with self._lock:
            self._sessions = [*self._open(), session]
        if self._stopping.is_set():
            session.stop()

    def each(self, items: Iterable[T], work: Callable[[T], object]) -> None:
        """Call `work` for all items at once, up to 16 at a time.

        Ctrl-C stops each item after the resource in hand, and at once if it has none. A second
        Ctrl-C abandons all. Raises Interrupted. When all have ended, the gravest exception of
        `work` is raised, and the errors of the other hosts are shown.
        """
        todo, happened, errors = SimpleQueue[T](), SimpleQueue[str](), list[BaseException]()
        for item in items:
            todo.put(item)

        def go_on() -> None:
            with suppress(Empty):
                while not self._stopping.is_set():
                    item = todo.get_nowait()
                    try:
                        work(item)
                    except BaseException as error:
                        errors.append(error)
            happened.put("ended")

        at_work = min(PARALLEL, todo.qsize())
        with interrupt.heard(lambda: happened.put("pressed")):
            # Daemons, because a thread that hangs must not keep the process alive once it is
            # abandoned. A connection to a host that is down hangs.
            for _ in range(at_work):
                threading.Thread(target=go_on, daemon=True).start()
            while at_work and not (self._stopping.is_set() and not self._open()):
                with suppress(Empty):
                    if happened.get(timeout=0.2) == "ended":
                        at_work -= 1
                    else:
                        self._interrupt()
        self._sessions = self._open()
        if self._stopping.is_set():
            self._show(error for error in errors if not isinstance(error, Stopped))
            raise Interrupted("interrupted", next="run the same command again: it goes on from there")
        if errors:
            gravest = max(errors, key=_gravity)
            self._show(error for error in errors if error is not gravest)
            raise gravest

    def run_one(self, work: Callable[[], T]) -> T:
        """Do the same for one piece of work, and return its result."""
        found: list[T] = []
        self.each([work], lambda one: found.append(one()))
        return found[0]

    def _open(self) -> list[Session]:
        return [session for session in self._sessions if session.is_open]

    def _show(self, errors: Iterable[BaseException]) -> None:
        for error in errors:
            if isinstance(error, DerpfleetError):
                self._report.failure(error)

    def _interrupt(self) -> None:
        sessions = self._open()
        if self._stopping.is_set():
            for session in sessions:
                session.close()
            why = "the agents finish the resource in hand on their own, and take back what is not confirmed"
            raise Interrupted("abandoned", why=why)
        self._stopping.set()
        self._report.say("stopping after the resource in hand; press Ctrl-C once more to abandon it")
        for session in sessions:
            session.stop()


def _gravity(error: BaseException) -> float:
    """Return the exit code; that of a defect is above all others."""
    return error.exit_code if isinstance(error, DerpfleetError) else float("inf")
