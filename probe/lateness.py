"""How late this controller is itself: one without CPU time sees answers late, or not in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_TICK_S = 0.05
_JITTER_S = 0.01
"""A sleep may end so late on a machine that is not busy."""
_STARVED_S = 0.5
_STARVED_PART = 0.25


class Lateness:
    """Sums up how much later this event loop wakes up than it asked to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.total_s = 0.0

    async def measure(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock() + _TICK_S
            await asyncio.sleep(_TICK_S)
            late_s = self._clock() - due
            self.total_s += late_s if late_s > _JITTER_S else 0.0


def starved(late_s: float, took_s: float) -> str:
    """Return in words that a rung may have failed for want of CPU time here; "" if it did not.

    `late_s`: how late the loop was in all while the rung was climbed; `took_s`: the rung's time.
    """
    if late_s < max(_STARVED_S, _STARVED_PART * took_s):
        return ""
    return f"this controller had no CPU time for {late_s:.1f} of {took_s:.1f} s, which may be all there is"
