"""Packets: two clients send to each other through the relay, at once and after a long silence."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from probe.derp import HungUp, Peer
from probe.net import Flooded, Patience
from probe.proof import Broken, Found, milliseconds
from probe.target import Target
from relay.client import Alive, Gone, Received
from relay.core.wire import ProtocolError

ROUNDS = ((1, 5), (1_280, 5), (65_536, 1))
"""(bytes, packets each way): the least, an ordinary WireGuard packet, the most that a relay has to take."""
_PACE_S = 0.01
_KEEP_ALIVE_S = 66.0
"""Keep-alives come every 60 to 65 s (derp/derp.go:KeepAlive)."""


async def check_packets(target: Target, pair: tuple[Peer, Peer], patience: Patience) -> Found[None]:
    """Each size passes both ways, unchanged and in order. One-way times, from one of our clients to the other. Raises Broken."""
    figures: dict[str, Any] = {}
    for size, count in ROUNDS:
        times = await _exchange(target, pair, size, count, patience.packets_s)
        figures[str(size)] = {"packets": len(times), "min_ms": round(min(times), 2), "median_ms": round(statistics.median(times), 2)}
    lines = [f"{_size(int(size))} {milliseconds(each['min_ms'])}/{milliseconds(each['median_ms'])}" for size, each in figures.items()]
    return Found(None, f"both ways, min/median ms: {', '.join(lines)}", data={"bytes": figures})


async def check_idle(target: Target, pair: tuple[Peer, Peer], patience: Patience) -> Found[None]:
    """Both connections survive a silence, hear a keep-alive if it is long enough for one, and still carry packets. Raises Broken."""
    heard = await asyncio.gather(*(_hold(target, peer, patience.idle_s) for peer in pair))
    if patience.idle_s >= _KEEP_ALIVE_S and not all(heard):
        raise Broken(
            f"no keep-alive in {patience.idle_s:.0f} s",
            cause="the relay sends none, or a proxy holds it back: clients give up after 120 s of silence",
            next=target.redeploy("relay", "read the relay's log"),
        )
    await _exchange(target, pair, 1, 1, patience.packets_s)
    alive = f", keep-alive after {min(min(each) for each in heard):.0f} s" if all(heard) else ""
    return Found(
        None,
        f"{patience.idle_s:.0f} s of silence survived{alive}, packets still pass",
        data={"keep_alive_s": [list(each) for each in heard]},
    )


async def _exchange(target: Target, pair: tuple[Peer, Peer], size: int, count: int, patience_s: float) -> list[float]:
    """Milliseconds from our sending to our receiving, of each packet in both directions."""
    left, right = pair
    payloads = [bytes([number]) if size == 1 else os.urandom(size) for number in range(count)]
    arrived = [0, 0]
    times: list[float] = []

    async def send(source: Peer, destination: Peer, sent: list[float]) -> None:
        for payload in payloads:
            source.client.send(destination.key, payload)
            sent.append(time.perf_counter())
            await source.flush()
            await asyncio.sleep(_PACE_S if payload is not payloads[-1] else 0)

    async def receive(source: Peer, destination: Peer, sent: list[float], way: int) -> None:
        for number, payload in enumerate(payloads):
            packet = await _next_packet(destination)
            times.append((time.perf_counter() - sent[number]) * 1000)
            if packet.source != source.key or packet.packet != payload:
                raise Broken(
                    f"a packet of {_size(size)} arrived changed, out of order or under another key",
                    cause="the relay does not hand packets on as they are",
                    next=target.redeploy("relay", "replace the relay"),
                )
            arrived[way] += 1

    forth: list[float] = []
    back: list[float] = []
    work = (send(left, right, forth), receive(left, right, forth, 0), send(right, left, back), receive(right, left, back, 1))
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        async with asyncio.timeout(patience_s):
            await asyncio.gather(*tasks)
    except TimeoutError:
        raise Broken(
            f"{sum(arrived)} of {2 * count} packets of {_size(size)} arrived in {patience_s:g} s",
            cause="the relay admits clients and drops their packets"
            if size == 1
            else "larger packets get stuck: a proxy's buffers, or a path that drops full-sized TCP segments (path MTU, blocked ICMP)",
            next=target.redeploy("relay", "read the relay's log and its drop counters"),
        ) from None
    except _Left as gone:
        raise Broken(
            f"the relay says that one of our clients is not there: {gone}",
            cause="several relays answer under one name, or it lost a client",
            next=target.redeploy("nginx", "let one relay serve the name"),
        ) from None
    except (HungUp, ProtocolError, Flooded) as error:
        raise Broken(
            f"the connection ended with packets of {_size(size)} under way: {error}",
            cause="the relay or the proxy hung up on a client that was admitted",
            next=target.redeploy("relay", "read the relay's log"),
        ) from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return times


class _Left(Exception):
    """PeerGone for one of our own."""


async def _next_packet(peer: Peer) -> Received:
    while True:
        event = await peer.next()
        if isinstance(event, Received):
            return event
        if isinstance(event, Gone):
            raise _Left(event.key.hex()[:16])


async def _hold(target: Target, peer: Peer, seconds: float) -> Sequence[float]:
    """Says nothing for so long; when keep-alives were heard, in seconds from the start."""
    began = last = time.perf_counter()
    heard: list[float] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                event = await peer.next()
                last = time.perf_counter()
                if isinstance(event, Alive):
                    heard.append(round(last - began, 1))
    except TimeoutError:
        return heard
    except (HungUp, ProtocolError, Flooded) as error:
        silence = time.perf_counter() - last
        raise Broken(
            f"an idle connection was cut after {silence:.1f} s of silence: {error}",
            cause="a proxy's idle time-out is shorter than the relay's keep-alive of 60 to 65 s (nginx's proxy_read_timeout is 60 s)",
            next=target.redeploy("nginx", "set proxy_read_timeout 1h in the relay's location"),
        ) from None


def _size(size: int) -> str:
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size:,} B"
