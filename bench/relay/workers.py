"""Several workers beside one process: lost first packets, and peers that a roaming client misses.

    python -m bench.relay.workers [--logins 1000] [--laptops 6] [--peers 4] [--workers 4]

Nothing is decided by a time limit: a packet is lost when one that was sent later has arrived, or
when it came to a connection that the client has left.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Final

from bench.relay import servers
from relay.connection import Connection
from relay.core.handshake import make_private_key

FIRST: Final = b"first"
LATER_S: Final = 0.01  # between the packets that follow the first one


async def login(port: int, private_key: bytes = b"") -> Connection:
    """Log in over plain HTTP."""
    return await Connection.open("127.0.0.1", port, private_key or make_private_key())


async def is_lost(sender: Connection, receiver: Connection) -> bool:
    """Send a packet, and more until one arrives. Return whether that is another than the first."""

    async def send() -> None:
        for number in count():
            await sender.send(receiver.client.public_key, FIRST if not number else b"later")
            await asyncio.sleep(LATER_S)

    sending = asyncio.ensure_future(send())
    try:
        while (got := await receiver.receive_packet()).source != sender.client.public_key:
            pass
        return got.packet != FIRST
    finally:
        sending.cancel()


async def first_packets(port: int, logins: int) -> tuple[int, int]:
    """Log in `logins` clients one after another, beside one that is there already each time.

    Return how many first packets were lost: those to the newcomer, and those from it.
    """
    to_it = from_it = 0
    for _ in range(logins):
        async with await login(port) as host, await login(port) as newcomer:
            lost = await asyncio.gather(is_lost(host, newcomer), is_lost(newcomer, host))
            to_it, from_it = to_it + lost[0], from_it + lost[1]
    return to_it, from_it


async def silent_peers(port: int, laptops: int, peers: int) -> int:
    """Let each laptop come again while its old connection stays, as after a change of networks.

    Return how many of its peers' next packets go to the connection that it has left.
    """
    silent = 0
    for _ in range(laptops):
        async with AsyncExitStack() as stack:
            private_key = make_private_key()
            old = await stack.enter_async_context(await login(port, private_key))
            others = [await stack.enter_async_context(await login(port)) for _ in range(peers)]
            for other in others:
                await is_lost(other, old)
            new = await stack.enter_async_context(await login(port, private_key))
            silent += await _went_to(old, new, others)
    return silent


async def _went_to(old: Connection, new: Connection, senders: list[Connection]) -> int:
    """Send a packet from each sender to the key of both. Return how many came to `old`."""
    arrived: asyncio.Queue[Connection] = asyncio.Queue()

    async def listen(connection: Connection) -> None:
        while True:
            if (await connection.receive_packet()).packet == b"roamed":
                arrived.put_nowait(connection)

    listening = [asyncio.ensure_future(listen(connection)) for connection in (old, new)]
    try:
        for sender in senders:
            await sender.send(new.client.public_key, b"roamed")
        return [await arrived.get() for _ in senders].count(old)
    finally:
        for each in listening:
            each.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.relay.workers", description=__doc__)
    parser.add_argument("--logins", type=int, default=1000)
    parser.add_argument("--laptops", type=int, default=6)
    parser.add_argument("--peers", type=int, default=4, help="of each laptop")
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    print("| relay | first packets to a newcomer, lost | from it, lost | silent peers after a roaming |")
    print("|---|---|---|---|")
    for name, workers in (("one process", 1), (f"{given.workers} workers", given.workers)):
        with (
            tempfile.TemporaryDirectory(prefix="bench-workers-") as folder,
            servers.running(servers.relay("-workers", str(workers)), Path(folder), tls=False) as relay,
        ):
            to_it, from_it = asyncio.run(first_packets(relay.port, given.logins))
            silent = asyncio.run(silent_peers(relay.port, given.laptops, given.peers))
        print(
            f"| {name} | {to_it} of {given.logins} | {from_it} of {given.logins} "
            f"| {silent} of {given.laptops * given.peers} |"
        )


if __name__ == "__main__":
    main()
