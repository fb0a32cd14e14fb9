"""The end of a relay: report when to come back, close in a spread, bounded in time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from random import uniform
from typing import TYPE_CHECKING, Final

from relay.core.wire import pack_restarting

if TYPE_CHECKING:
    from relay.io.link import Link
    from relay.io.loop import Loop
    from relay.io.tick import Tick
    from relay.log import Log

CLOSES_PER_S: Final = 200.0  # what the next relay gets as new handshakes
TRY_FOR_S: Final = 30.0  # how long clients are to try again without calling it a failure
RECONNECT_MS: Final = 500  # a restart takes about that long
LINGER_S: Final = 0.05  # for the last bytes to leave


async def drain(links: Collection[Link], *, tick: Tick, loop: Loop, spread_s: float, log: Log) -> None:
    """Report the end to every client, and close each in turn, in `spread_s` at most.

    The relay accepts no new clients by then.
    """
    links = [*links]
    spread_s = min(spread_s, len(links) / CLOSES_PER_S)
    log.info("draining", clients=len(links), seconds=round(spread_s, 1))
    for link in links:
        if link.session is not None:
            # Random to spread the load, not to hide something.
            reconnect_ms = int(uniform(0, 1000 * spread_s)) + RECONNECT_MS  # noqa: S311
            link.session.outbox.control(pack_restarting(reconnect_ms, int(TRY_FOR_S * 1000)))
    tick.flush()
    started = loop.time()
    for number, link in enumerate(links):
        if link.session is None:  # it left meanwhile
            continue
        link.close()
        ahead_s = started + spread_s * number / len(links) - loop.time()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
    await asyncio.sleep(LINGER_S)
