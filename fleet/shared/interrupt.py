"""Ctrl-C while a verb starts or ends: exit at once, with exit code 130.

In between, Ctrl-C raises KeyboardInterrupt, so that the verb can clean up.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CODE = 130


def leave_at_once() -> None:
    """Make Ctrl-C exit at once from now on.

    A no-op when SIGINT is ignored, as a shell does for background jobs.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def raised() -> Iterator[None]:
    """Make Ctrl-C raise KeyboardInterrupt inside the block."""
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
