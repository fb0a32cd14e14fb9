"""Clients behind one address that come at once, as an office does after a restart."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass

from bench.relay.servers import HOST, Running
from lab.delay import DelayProxy
from relay.connection import Connection
from relay.core.handshake import make_private_key
from relay.core.wire import ProtocolError

AGAIN_S = 0.1


@dataclass(frozen=True)
class Crowd:
    """`failed`: attempts that the relay ended. `last_s`: when the last client was in."""

    failed: int
    last_s: float


async def come_at_once(relay: Running, *, count: int, rtt_s: float) -> Crowd:
    """Log in `count` clients over TLS from one address, each again until it is in and stays."""
    trust = ssl.create_default_context(cafile=str(relay.ca))
    failed, started = 0, time.monotonic()
    async with DelayProxy(("127.0.0.1", relay.port), rtt_s=rtt_s) as proxy:

        async def come() -> Connection:
            nonlocal failed
            while True:
                try:
                    return await Connection.open(
                        "127.0.0.1",
                        proxy.address[1],
                        make_private_key(),
                        tls=trust,
                        server_name=HOST,
                        fast_start=True,
                    )
                except (OSError, EOFError, ProtocolError):
                    failed += 1
                    await asyncio.sleep(AGAIN_S)

        clients = await asyncio.gather(*(come() for _ in range(count)))
        took = time.monotonic() - started
        for client in clients:
            client.close()
    return Crowd(failed, took)
