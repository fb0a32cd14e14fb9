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
from probe.target import Part, Target
from relay.client import Alive, Gone, Received
from relay.core.wire import ProtocolError

ROUNDS = ((1, 5), (1_280, 5), (65_536, 1))
"""(bytes, packets each way): the least, an ordinary WireGuard packet, the most that a relay has to
accept."""
_PACE_S = 0.01
_KEEP_ALIVE_S = 66.0
"""Keep-alives come every 60 to 65 s (derp/derp.go:KeepAlive)."""


async def check_packets(target: Target, pair: tuple[Peer, Peer], patience: Patience) -> Found[None]:
    """Check that each size passes both ways, unchanged and in order. Raises Broken.

    The times are one-way, from one of our clients to the other.
    """
    figures: dict[str, Any] = {}
    for size, count in ROUNDS:
        times = await _exchange(target, pair, size, count, patience.packets_s)
        figures[str(size)] = {
            "packets": len(times),
            "min_ms": round(min(times), 2),
            "median_ms": round(statistics.median(times), 2),
        }
    lines = [
        f"{_size(int(size))} {milliseconds(each['min_ms'])}/{milliseconds(each['median_ms'])}"
        for size, each in figures.items()
    ]
    return Found(None, f"both ways, min/median ms: {', '.join(lines)}", data={"bytes": figures})


async def check_idle(target: Target, pair: tuple[Peer, Peer], patience: Patience) -> Found[None]:
    """Check that both connections survive a silence and still carry packets. Raises Broken.

    A keep-alive has to come if the silence is long enough for one.
    """
    heard = await asyncio.gather(*(_hold(target, peer, patience.idle_s) for peer in pair))
    if patience.idle_s >= _KEEP_ALIVE_S and not all(heard):
        raise Broken(
            f"no keep-alive in {patience.idle_s:.0f} s",
            cause=(
                "the relay sends no keep-alive, or a proxy holds it back: clients "
                "give up after 120 s of silence"
            ),
            next=target.redeploy(Part.RELAY, "read the relay's log"),
        )
    await _exchange(target, pair, 1, 1, patience.packets_s)
    alive = f", keep-alive after {min(min(each) for each in heard):.0f} s" if all(heard) else ""
    return Found(
        None,
        f"{patience.idle_s:.0f} s of silence survived{alive}, packets still pass",
        data={"keep_alive_s": [list(each) for each in heard]},
    )


async def _exchange(
    target: Target, pair: tuple[Peer, Peer], size: int, count: int, patience_s: float
) -> list[float]:
    """Exchange packets both ways; return milliseconds from sending to receiving of each.

    Raises Broken.
    """
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
                    next=target.redeploy(Part.RELAY, "replace the relay"),
                )
            arrived[way] += 1

    forth: list[float] = []
    back: list[float] = []
    work = (
        send(left, right, forth),
        receive(left, right, forth, 0),
        send(right, left, back),
        receive(right, left, back, 1),
    )
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        async with asyncio.timeout(patience_s):
            await asyncio.gather(*tasks)
    except TimeoutError:
        seen = f"{sum(arrived)} of {2 * count} packets of {_size(size)} arrived in {patience_s:g} s"
        raise _stuck(target, seen, size) from None
    except (_Left, HungUp, ProtocolError, Flooded) as error:
        raise _cut_off(target, error, size) from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return times


def _stuck(target: Target, seen: str, size: int) -> Broken:
    """Return the reason why packets of that size did not arrive in time."""
    cause = "the relay admits clients and drops their packets"
    if size > 1:
        cause = (
            "larger packets get stuck: a proxy's buffers, or a path that drops full-sized TCP "
            "segments (path MTU, blocked ICMP)"
        )
    step = target.redeploy(Part.RELAY, "read the relay's log and its drop counters")
    return Broken(seen, cause=cause, next=step)


def _cut_off(target: Target, error: Exception, size: int) -> Broken:
    """Return the reason why a client was lost while packets of that size were under way."""
    if isinstance(error, _Left):
        return Broken(
            f"the relay says that one of our clients is not there: {error}",
            cause="several relays answer under one name, or the relay lost a client",
            next=target.redeploy(Part.FRONT, "let one relay serve the name"),
        )
    return Broken(
        f"the connection ended with packets of {_size(size)} under way: {error}",
        cause="the relay or the proxy hung up on a client that was admitted",
        next=target.redeploy(Part.RELAY, "read the relay's log"),
    )


class _Left(Exception):
    """The relay sent PeerGone for one of our clients."""


async def _next_packet(peer: Peer) -> Received:
    while True:
        event = await peer.next()
        if isinstance(event, Received):
            return event
        if isinstance(event, Gone):
            raise _Left(event.key.hex()[:16])


async def _hold(target: Target, peer: Peer, seconds: float) -> Sequence[float]:
    """Send nothing for so long; return when keep-alives came, in seconds from the start.

    Raises Broken.
    """
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
            cause=(
                "a proxy's idle time-out is shorter than the relay's keep-alive of 60 to 65 s (nginx's "
                "proxy_read_timeout is 60 s)"
            ),
            next=target.redeploy(Part.FRONT, "set proxy_read_timeout 1h in the relay's location"),
        ) from None


def _size(size: int) -> str:
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size:,} B"
