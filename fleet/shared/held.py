"""Keep an armed plan waiting while its judge works."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.session import Session

_EVERY_S = 20  # a plan waits for 60 s without a word
_LONGEST_S = 180  # of one piece of work: a judge that hangs leads back


@contextmanager
def held(session: Session) -> Iterator[None]:
    """Hold the plan at once, and again and again while the block works.

    The block may ask other hosts, and one that hardly answers takes longer than the plan waits.
    """
    done, until = threading.Event(), time.monotonic() + _LONGEST_S

    def hold() -> None:
        while not done.wait(_EVERY_S) and time.monotonic() < until:
            session.hold()

    session.hold()
    holding = threading.Thread(target=hold, daemon=True)
    holding.start()
    try:
        yield
    finally:
        done.set()
        holding.join()
