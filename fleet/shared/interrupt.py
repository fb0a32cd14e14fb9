"""Ctrl-C, and SIGTERM in the same way, as a CI sends it to a job that it cancels.

While a verb starts or ends, they make it exit at once, with exit code 130. In between, they raise
KeyboardInterrupt, so that the verb can clean up.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 130
BUDGET_S = 8.0  # from SIGTERM to the exit: 10 s is what most programs wait before they kill
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_at_once() -> None:
    """Make both signals exit at once from now on.

    A signal that is ignored stays so: a shell ignores SIGINT for background jobs.
    """
    for number in _heard():
        signal.signal(number, _leave)


@contextmanager
def raised() -> Iterator[None]:
    """Make both signals raise KeyboardInterrupt inside the block."""
    with heard(_raise):
        yield


@contextmanager
def heard(call: Callable[[], object]) -> Iterator[None]:
    """Call `call` on both signals inside the block. After SIGTERM the process ends within BUDGET_S.

    A no-op for a signal that is ignored, and outside the main thread, which alone may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hear(number: int, _: FrameType | None) -> None:
        if number == signal.SIGTERM:
            signal.signal(signal.SIGALRM, _leave)
            signal.setitimer(signal.ITIMER_REAL, BUDGET_S)
        call()

    before = {number: signal.getsignal(number) for number in _heard()}
    try:
        for number in before:
            signal.signal(number, hear)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _heard() -> list[signal.Signals]:
    return [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _raise() -> None:
    raise KeyboardInterrupt


def _leave(_: int, __: FrameType | None) -> None:
    os.write(2, b"\ninterrupted\n")
    os._exit(CODE)
