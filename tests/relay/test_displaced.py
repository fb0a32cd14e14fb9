"""Handshakes that are displaced by newer ones do not go on asking the admission controller."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from bench.relay.servers import free_port
from relay.admission.turns import OF_ONE_NETWORK
from relay.connection import Connection
from relay.core.addresses import CROWD
from relay.core.handshake import make_private_key
from relay.core.wire import ProtocolError
from tests.relay.httpserver import Script
from tests.relay.live import Live, relay

pytestmark = pytest.mark.timeout(60)
LIMIT, CLIENTS = 4, 400


async def _come(live: Live) -> bool:
    """Introduce a client that nobody knows. Return whether it was admitted."""
    with suppress(OSError, EOFError, ValueError, ProtocolError):
        connection = await Connection.open("127.0.0.1", live.running.port, make_private_key())
        connection.close()
        return True
    return False


async def _flood(live: Live, port: int) -> tuple[Script, int, list[bool]]:
    """Send a crowd from one address past a controller that does not answer until all have come.

    Return the controller, how many questions it had at once, and who was admitted.
    """
    gate, most, under_way = asyncio.Event(), 0, 0

    async def wait() -> None:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1

    controller = Script((200, b'{"Allow":true}'), before_answer=wait)
    server = await asyncio.start_server(controller.serve, "127.0.0.1", port)
    async with server:
        crowd = []
        for _ in range(CLIENTS):
            crowd.append(asyncio.ensure_future(_come(live)))
            await asyncio.sleep(0.005)  # each gets as far as the question
        while sum(client.done() for client in crowd) < CLIENTS - CROWD * LIMIT:
            await asyncio.sleep(0.05)  # they are displaced
        gate.set()
        return controller, most, await asyncio.gather(*crowd)


def test_a_crowd_from_one_address_asks_eight_questions_at_once(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    flags = ("-verify-client-url", f"http://127.0.0.1:{port}/verify", "-verify-cache", "0s")
    with relay(tmp_path, *flags, "-handshakes-per-address", str(LIMIT), tls=False) as live:
        controller, most, admitted = asyncio.run(_flood(live, port))
        assert most == OF_ONE_NETWORK
        # Those that had a turn when they were displaced, and those that were left.
        assert len(controller.requests) <= OF_ONE_NETWORK + CROWD * LIMIT
        assert 0 < sum(admitted) <= CROWD * LIMIT
