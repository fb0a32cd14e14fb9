"""Does this relay answer at its own published address? While it does not, its STUN must not say that it works.

Clients keep a relay as their home whose STUN answers though its TLS is dead: so the check goes the way that clients go,
through name, front, certificate and all, with a fresh connection each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relay.httpclient import HttpClient, HttpError, Request
from relay.log import Log

WELL_S: Final = 15.0  # between checks
ILL_S: Final = 5.0
LIMIT_S: Final = 5.0
PATIENCE: Final = 2  # failures in a row before a front that worked counts as broken
LOG: Final = Log("front")


async def watch_front(url: str, tell: Callable[[bool], None]) -> None:
    """Ask for `url` for ever, and `tell` whether it answers whenever that changes; the first answer counts at once."""
    known, failures = True, PATIENCE - 1
    while True:
        problem = await check_front(url)
        failures = failures + 1 if problem else 0
        well = failures < PATIENCE
        if well is not known:
            known = well
            tell(well)
            if well:
                LOG.info("the front answers again, so does STUN", url=url)
            else:
                LOG.error("the relay's own front does not answer, STUN falls silent", url=url, problem=problem)
        await asyncio.sleep(WELL_S if known and not failures else ILL_S)


async def check_front(url: str) -> str:
    """What is wrong with the answer, or ""."""
    client = HttpClient()
    try:
        response = await client.send(Request("GET", url), LIMIT_S)
    except HttpError as error:
        return str(error)
    finally:
        client.close()
    return "" if 200 <= response.status < 300 else f"HTTP {response.status}"
