"""Bad requests as fast as they come, beside a pair that sends a packet every 10 ms."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from bench.relay.servers import Running
from relay.connection import Connection
from relay.core.handshake import make_private_key

EVERY_S, SECONDS = 0.01, 20.0
BAD = (
    b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
    b"GET  /\r\n\r\n",
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
)


@dataclass(frozen=True)
class Lateness:
    """One-way times of the pair: the worst, and the time that 99.9 % of them kept to."""

    worst_ms: float
    late_ms: float
    requests_a_second: float


async def lateness(relay: Running, *, senders: int) -> Lateness:
    """Measure the pair for 20 s beside processes that send bad requests.

    The relay is on plain HTTP, as behind a front: with TLS the sender would have more work than it.
    """
    count = multiprocessing.Value("q", 0)
    started = [
        multiprocessing.Process(target=send_bad, args=(relay.port, count)) for _ in range(senders)
    ]
    for process in started:
        process.start()
    try:
        times = await _one_way_ms(relay)
    finally:
        for process in started:
            process.terminate()
            process.join()
    times.sort()
    return Lateness(times[-1], times[int(len(times) * 0.999)], count.value / SECONDS)


def send_bad(port: int, count: Synchronized[Any]) -> None:
    """Send bad requests, each over a connection of its own, until this process is ended.

    It has less of the cores than relay and pair: else they would wait for it, and not for the
    relay's work.
    """
    os.nice(10)
    for bad in cycle(BAD):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(bad)
            sock.recv(1)
        with count.get_lock():
            count.value += 1


async def _one_way_ms(relay: Running) -> list[float]:

    async def login() -> Connection:
        return await Connection.open("127.0.0.1", relay.port, make_private_key())

    async with await login() as sender, await login() as receiver:

        async def send() -> None:
            while True:
                await sender.send(receiver.client.public_key, struct.pack("d", time.perf_counter()))
                await asyncio.sleep(EVERY_S)

        sending, times = asyncio.ensure_future(send()), []
        deadline = time.perf_counter() + SECONDS
        while time.perf_counter() < deadline:
            packet = (await receiver.receive_packet()).packet
            times.append((time.perf_counter() - struct.unpack("d", packet)[0]) * 1000)
        sending.cancel()
        return times
