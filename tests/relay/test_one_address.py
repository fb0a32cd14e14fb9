"""Many clients behind one address: an office after a restart, and an attacker in its midst."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from bench.relay import servers
from relay.connection import Connection
from relay.core.handshake import make_private_key
from tests.relay.live import Live, relay

pytestmark = pytest.mark.timeout(120)


def _context(live: Live) -> ssl.SSLContext | None:
    if live.running.ca is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(live.running.ca)
    return context


async def _get_in(live: Live, context: ssl.SSLContext | None) -> tuple[Connection, int]:
    """Log in as a client does that tries again after a moment; return how often it failed."""
    failures = 0
    while True:
        try:
            return (
                await Connection.open(
                    "127.0.0.1",
                    live.running.port,
                    make_private_key(),
                    tls=context,
                    server_name=servers.HOST,
                    fast_start=True,
                ),
                failures,
            )
        except (OSError, EOFError, ValueError):
            failures += 1
            await asyncio.sleep(0.2)


async def _all_get_in(live: Live, count: int) -> int:
    context = _context(live)
    came = await asyncio.gather(*(_get_in(live, context) for _ in range(count)))
    for connection, _ in came:
        connection.close()
    return sum(failures for _, failures in came)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_six_hundred_at_once_get_in(tmp_path: Path, tls: bool) -> None:
    with relay(tmp_path, tls=tls) as live:
        failures = asyncio.run(_all_get_in(live, 600))
        live.assert_undisturbed()
    assert failures <= 20


class Slowloris:
    """Connections that send a head byte by byte, and come again as soon as they are hung up on."""

    def __init__(self, live: Live, count: int) -> None:
        self._live = live
        self._count = count
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Slowloris:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        crowd = [asyncio.ensure_future(self._dribble()) for _ in range(self._count)]
        while not self._over.is_set():
            await asyncio.sleep(0.05)
        for each in crowd:
            each.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    async def _dribble(self) -> None:
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._live.running.port)
                try:
                    for byte in b"GET /" + b"a" * 1000:
                        writer.write(bytes((byte,)))
                        await writer.drain()
                        await asyncio.sleep(0.3)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.3)


def test_a_slow_attack_from_the_same_address_is_held_down_and_clients_get_in(tmp_path: Path) -> None:
    with relay(tmp_path, tls=False) as live, Slowloris(live, 400):
        failures = 0
        for _ in range(10):
            failures += asyncio.run(asyncio.wait_for(_all_get_in(live, 4), 20))
            asyncio.run(asyncio.sleep(0.4))
        refused = live.metrics()['relay_refusals{reason="too_many_handshakes_here"}']
    assert failures <= 4
    assert refused > 300, "they are hung up on, as far as they are above 64"
