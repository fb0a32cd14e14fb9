"""Run work for several hosts at once. Ctrl-C stops all of it after the resource in hand."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from engine.session import Session
from fleet.shared.errors import Interrupted

T = TypeVar("T")
PARALLEL = 16


class Parallel:
    """The work of one command and its sessions, which Ctrl-C has to stop."""

    def __init__(self, say: Callable[[str], object]) -> None:
        """`say` shows a line to the person who pressed Ctrl-C."""
        self._say = say
        self._sessions: set[Session] = set()
        self._stopping = threading.Event()

    def watch(self, session: Session) -> None:
        """Register a session that Ctrl-C has to stop."""
        self._sessions.add(session)
        if self._stopping.is_set():
            session.stop()

    def each(self, items: Iterable[T], work: Callable[[T], object]) -> None:
        """Call `work` for all items at once, up to 16 at a time.

        Ctrl-C stops each item after the resource in hand, and at once if it has none. A second
        Ctrl-C abandons all. Raises Interrupted. An exception of `work` is raised after all end.
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
        with _on_ctrl_c(lambda: happened.put("pressed")):
            # Daemons, because a thread that hangs must not keep the process alive once it is
            # abandoned. A connection to a host that is down hangs.
            for _ in range(at_work):
                threading.Thread(target=go_on, daemon=True).start()
            while at_work and not (self._stopping.is_set() and not self._has_open_session()):
                with suppress(Empty):
                    if happened.get(timeout=0.2) == "ended":
                        at_work -= 1
                    else:
                        self._interrupt()
        if self._stopping.is_set():
            raise Interrupted("interrupted", next="run the same command again: it goes on from there")
        if errors:
            raise errors[0]

    def run_one(self, work: Callable[[], T]) -> T:
        """Do the same for one piece of work, and return its result."""
        found: list[T] = []
        self.each([work], lambda one: found.append(one()))
        return found[0]

    def _has_open_session(self) -> bool:
        return any(session.is_open for session in self._sessions)

    def _interrupt(self) -> None:
        sessions = tuple(self._sessions)
        if self._stopping.is_set():
            for session in sessions:
                session.close()
            raise Interrupted("abandoned", why="the agents finish the resource in hand on their own")
        self._stopping.set()
        self._say("stopping after the resource in hand; press Ctrl-C once more to abandon it")
        for session in sessions:
            session.stop()


@contextmanager
def _on_ctrl_c(call: Callable[[], object]) -> Iterator[None]:
    """Call `call` on Ctrl-C instead of raising KeyboardInterrupt inside the block.

    A no-op outside the main thread, which alone may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
