"""Wait for a lock that another command holds only for a moment, as that of the headscale host."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from engine.report import Report
from engine.session import Locked

T = TypeVar("T")
WAIT_S = 120.0
_PAUSES_S = (1.0, 2.0, 5.0)  # the last one again and again


def once_free(report: Report, host: str, work: Callable[[], T]) -> T:
    """Do `work`, and again while the host is locked, up to WAIT_S. Raises Locked after that.

    Say once that this waits, and for whom.
    """
    until, tries = time.monotonic() + WAIT_S, 0
    while True:
        try:
            return work()
        except Locked as error:
            pause_s = _PAUSES_S[min(tries, len(_PAUSES_S) - 1)]
            if time.monotonic() + pause_s > until:
                raise
            if not tries:
                report.line(host, "waiting", f"{error.what}; this goes on then, or ends after {WAIT_S:.0f} s")
            tries += 1
            time.sleep(pause_s)
