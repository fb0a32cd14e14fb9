"""Ctrl-C while a verb starts or ends: out at once, with its exit code. In between, KeyboardInterrupt puts things in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 130


def leave_at_once() -> None:
    """From now on. Whoever ignores Ctrl-C for us, as a shell does in the background, has his way."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def raised() -> Iterator[None]:
    """Inside, Ctrl-C is KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    try:
        if before is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(_: int, __: FrameType | None) -> None:
    os.write(2, b"\ninterrupted\n")
    os._exit(CODE)
