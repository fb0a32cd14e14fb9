"""Strangers of many networks, each with a key of its own, before a slow admission controller."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.relay import servers
from relay.client import Client
from relay.core.handshake import make_private_key

NETWORKS, OF_EACH = 40, 25
ANSWERS_AFTER_S = 0.5


@dataclass(frozen=True)
class Questions:
    """The most questions at once, in all and about clients of one network."""

    in_all: int
    of_one_network: int
    strangers: int


async def questions_at_once(folder: Path) -> Questions:
    """Introduce strangers whose addresses a trusted proxy names, and count at the controller."""
    under_way: Counter[str] = Counter()
    most = most_of_one = asked = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most, most_of_one, asked
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                source = json.loads(await reader.readexactly(length))["Source"]
                under_way[source] += 1
                asked += 1
                most, most_of_one = max(most, under_way.total()), max(most_of_one, *under_way.values())
                await asyncio.sleep(ANSWERS_AFTER_S)
                under_way[source] -= 1
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"Allow":false}')
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as controller:
        url = f"http://127.0.0.1:{controller.sockets[0].getsockname()[1]}/verify"
        server = servers.relay("-verify-client-url", url, "-trusted-proxies", "127.0.0.1")
        with servers.running(server, folder, tls=False) as relay:
            comers = [_come(relay.port, f"10.0.{net}.1") for net in range(NETWORKS) for _ in range(OF_EACH)]
            await asyncio.gather(*comers)
    assert asked > most > 0
    return Questions(most, most_of_one, len(comers))


async def _come(port: int, address: str) -> None:
    """Introduce a stranger behind a proxy, and wait until it is refused."""
    client = Client(make_private_key())
    client.start(f"127.0.0.1:{port}", "/derp")
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = client.outgoing().replace(b"\r\n\r\n", f"\r\nX-Forwarded-For: {address}\r\n\r\n".encode())
            writer.write(head)
            while data := await reader.read(4096):
                client.receive(data)
                writer.write(client.outgoing())
        finally:
            writer.close()
