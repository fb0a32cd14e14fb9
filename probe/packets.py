"""Packets: two clients send to each other through the relay, at once and after a long silence.

Other proofs may use the same keys at the same time, also from other controllers. The relay then
hands a packet to the client with that key that spoke last. So each proof knows its own packets by
a mark, and sends again the packets that another proof was given.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import statistics
import struct
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from probe.derp import HungUp, ProbeClient
from probe.net import Flooded, Patience
from probe.proof import Broken, Found, milliseconds
from probe.target import Part, Target
from relay.client import Alive, Event, Gone, Received
from relay.core.wire import ProtocolError

SIZES = (*[32] * 5, *[1_280] * 5, 65_536)
"""Of the packets each way, in bytes: WireGuard's least, an ordinary WireGuard packet, the most that
a relay has to accept. They do not wait for each other, as each time would be a turn."""
_LEAST = SIZES[0]
_PACE_S = 0.01
_QUIET_S = 0.3
"""After so long without a packet the missing ones are sent again."""
_ATTEMPTS = 3
"""Attempts in which packets may be missing before the relay is blamed. The packets may have gone
to another proof that ended without a word."""
_HEAD = struct.Struct(">12sI")  # the mark of the sending client, and the packet's number
_KEEP_ALIVE_S = 66.0
"""Keep-alives come every 60 to 65 s (derp/derp.go:KeepAlive)."""


async def check_packets(
    target: Target, pair: tuple[ProbeClient, ProbeClient], patience: Patience
) -> Found[None]:
    """Check that each size passes both ways, unchanged and in order. Raises Broken.

    The times are one-way, from one of our clients to the other.
    """
    found = await _exchange(target, pair, SIZES, patience.packets_s)
    figures: dict[str, Any] = {
        str(size): {
            "packets": len(times),
            "min_ms": round(min(times), 2),
            "median_ms": round(statistics.median(times), 2),
        }
        for size, times in found.items()
    }
    lines = [
        f"{_size(int(size))} {milliseconds(each['min_ms'])}/{milliseconds(each['median_ms'])}"
        for size, each in figures.items()
    ]
    return Found(None, f"both ways, min/median ms: {', '.join(lines)}", data={"bytes": figures})


async def check_idle(
    target: Target, pair: tuple[ProbeClient, ProbeClient], patience: Patience
) -> Found[None]:
    """Check that both connections survive a silence and still carry packets. Raises Broken.

    A keep-alive has to come if the silence is long enough for one.
    """
    heard = await asyncio.gather(*(_hold(target, peer, patience.idle_s) for peer in pair))
    if patience.idle_s >= _KEEP_ALIVE_S and not all(heard):
        raise Broken(
            f"no keep-alive in {patience.idle_s:.0f} s",
            cause="the relay sends none, or a proxy holds it back: clients give up after 120 s of silence",
            next=target.read_log,
        )
    await _exchange(target, pair, (_LEAST,), patience.packets_s)
    alive = f", keep-alive after {min(min(each) for each in heard):.0f} s" if all(heard) else ""
    return Found(
        None,
        f"{patience.idle_s:.0f} s of silence survived{alive}, packets still pass",
        data={"keep_alive_s": [list(each) for each in heard]},
    )


def make_packet(mark: bytes, number: int, size: int) -> bytes:
    """Return a packet whose contents follow from its head, so that any proof can check it."""
    head = _HEAD.pack(mark, number)
    return head + hashlib.shake_128(head + size.to_bytes(4, "big")).digest(size - _HEAD.size)


def read_packet(packet: bytes) -> tuple[bytes, int] | None:
    """Return the mark and the number of a packet of any proof, or None when it is not whole."""
    if len(packet) < _HEAD.size:
        return None
    mark, number = _HEAD.unpack_from(packet)
    return (mark, number) if packet == make_packet(mark, number, len(packet)) else None


class Way:
    """Packets on their way from one of our clients to the other.

    `sizes`: of the packets, in bytes, the least first. `times`: ms of those that arrived, by size.
    `foreign`: packets of other proofs came. `damaged`: a packet came that no proof has sent so.
    """

    def __init__(
        self, target: Target, source: ProbeClient, destination: ProbeClient, sizes: Sequence[int]
    ) -> None:
        self._target, self._source, self._destination = target, source, destination
        self._sizes = sizes
        self._sent: dict[int, tuple[int, float]] = {}
        self._last, self._arrived = -1, 0
        self.times: dict[int, list[float]] = {size: [] for size in sizes}
        self.foreign = self.damaged = False

    @property
    def missing(self) -> list[int]:
        """Return the sizes of the packets that have still to arrive, the least first."""
        there = Counter({size: len(times) for size, times in self.times.items()})
        return list((Counter(self._sizes) - there).elements())

    @property
    def lost(self) -> bool:
        """Whether a packet did not arrive that was sent before one that did."""
        return sum(number <= self._last for number in self._sent) > self._arrived

    async def send(self) -> None:
        """Send the packets, and again those that are missing, until none is. Raises HungUp."""
        for size in self._sizes:
            await self._send_one(size)
            await asyncio.sleep(_PACE_S)
        while self.missing:
            before = self._arrived
            # Not in step with other proofs, or they would take each other's packets again.
            await asyncio.sleep(_QUIET_S * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            for size in self.missing if self._arrived == before else ():
                self._destination.client.ping(bytes(8))  # it spoke last then
                await self._destination.flush()
                await self._send_one(size)

    async def _send_one(self, size: int) -> None:
        number = self._source.take_number()
        self._source.client.send(self._destination.key, make_packet(self._source.mark, number, size))
        self.note_sent(number, size, time.perf_counter())
        await self._source.flush()

    def note_sent(self, number: int, size: int, now: float) -> None:
        """Note that a packet of that size leaves now; `now` in seconds."""
        self._sent[number] = size, now

    async def receive(self) -> None:
        """Wait until all packets are there.

        Raises Broken, Left, HungUp, ProtocolError, Flooded.
        """
        while self.missing:
            self.take(await self._destination.next(), time.perf_counter())

    def take(self, event: Event, now: float) -> None:
        """Judge one event at the receiver; those of other proofs are passed over.

        Raises Broken, Left.
        """
        if isinstance(event, Gone) and event.key == self._source.key:
            raise Left(event.key.hex()[:16])
        if not isinstance(event, Received):
            return
        read = read_packet(event.packet)
        if event.packet[: len(self._source.mark)] != self._source.mark:
            self.foreign |= read is not None
            self.damaged |= read is None
            if read is not None:
                self._destination.stream.leave_out(len(event.packet))
            return
        number = read[1] if read else -1
        if 0 <= number < min(self._sent, default=0):
            return  # of an earlier exchange, sent again and late
        size, sent = self._sent.get(number, (0, 0.0))
        if size != len(event.packet) or number <= self._last or event.source != self._source.key:
            raise _changed(self._target, len(event.packet))
        self._last = number
        self._arrived += 1
        if size in self.missing:
            self.times[size].append((now - sent) * 1000)


async def _exchange(
    target: Target, pair: tuple[ProbeClient, ProbeClient], sizes: Sequence[int], patience_s: float
) -> dict[int, list[float]]:
    """Exchange packets both ways; return milliseconds from sending to receiving of each, by size.

    Lost packets are forgiven where packets of other proofs show who was given them.
    Raises Broken.
    """
    left, right = pair
    ways: tuple[Way, ...] = ()
    crowded = False
    attempts = 0
    try:
        async with asyncio.timeout(patience_s):
            while True:
                attempts += 1
                ways = tuple(Way(target, *each, sizes) for each in ((left, right), (right, left)))
                left_out: Left | None = None
                try:
                    await _carry(ways)
                except Left as error:
                    left_out = error
                crowded |= any(way.foreign for way in ways)
                if left_out is None and (crowded or not any(way.lost for way in ways)):
                    there, back = (way.times for way in ways)
                    return {size: there[size] + back[size] for size in there}
                if attempts == _ATTEMPTS and not crowded:
                    raise left_out or _Lossy(attempts)
                await asyncio.sleep(_QUIET_S * random.uniform(0.1, 1))  # noqa: S311 - no secret
    except TimeoutError:
        crowded |= any(way.foreign for way in ways)
        damaged = any(way.damaged for way in ways)
        size = _least_missing(ways, sizes)
        arrived = sum(len(way.times[size]) for way in ways)
        seen = f"{arrived} of {2 * sizes.count(size)} packets of {_size(size)} arrived in {patience_s:g} s"
        if crowded:
            raise _crowded_out(target, seen) from None
        if not any(way.missing for way in ways):  # the time ended between two attempts
            raise _cut_off(target, _Lossy(attempts), size) from None
        raise (_changed(target, size) if damaged else _stuck(target, seen, size)) from None
    except (Left, _Lossy, HungUp, ProtocolError, Flooded) as error:
        raise _cut_off(target, error, _least_missing(ways, sizes)) from None


def _least_missing(ways: Sequence[Way], sizes: Sequence[int]) -> int:
    """Return the least size of which a packet has still to arrive; the last one when none has."""
    return min((size for way in ways for size in way.missing), default=sizes[-1])


async def _carry(ways: Sequence[Way]) -> None:
    """Send and receive on all ways until all packets are there. Raises as `Way.receive` does."""
    sending = [asyncio.ensure_future(way.send()) for way in ways]
    receiving = [asyncio.ensure_future(way.receive()) for way in ways]
    try:
        while not all(task.done() for task in receiving):
            working = [task for task in (*sending, *receiving) if not task.done()]
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in (*sending, *receiving):
            task.cancel()
        await asyncio.gather(*sending, *receiving, return_exceptions=True)


def _changed(target: Target, size: int) -> Broken:
    """Return the reason why a packet is not what was sent."""
    return Broken(
        f"a packet of {_size(size)} arrived changed, twice, out of order or under another key",
        cause="the relay does not hand packets on as they are",
        next=target.redeploy(Part.RELAY, "replace the relay", unchanged=target.restart()),
    )


def _crowded_out(target: Target, seen: str) -> Broken:
    """Return the reason why the proof could not be made beside so many others."""
    return Broken(
        seen,
        cause="other proofs with the same keys took the packets all the time: nothing is known of the relay",
        next=f"wait for the other proofs to end, then {target.again}",
    )


def _stuck(target: Target, seen: str, size: int) -> Broken:
    """Return the reason why packets of that size did not arrive in time."""
    cause, step = "the relay admits clients and drops their packets", target.read_log
    if size > _LEAST:
        cause = (
            "larger packets get stuck: a proxy's buffers, or a path that drops full-sized TCP "
            "segments (path MTU, blocked ICMP)"
        )
        step = (
            f"tracepath {target.domain} shows the path's MTU: if it is less than that of the relay's host, "
            f"set it there (ip link set dev … mtu …); else look at the proxy's buffers; then {target.again}"
        )
    return Broken(seen, cause=cause, next=step)


def _cut_off(target: Target, error: Exception, size: int) -> Broken:
    """Return the reason why packets of that size were lost, or a client with them."""
    if isinstance(error, _Lossy):
        return Broken(
            f"packets were lost in each attempt (attempts made: {error})",
            cause="the relay admits clients and drops some of their packets",
            next=target.read_log,
        )
    if isinstance(error, Left):
        return Broken(
            f"the relay says that one of our clients is not there: {error}",
            cause="several relays answer under one name, or the relay lost a client",
            next=target.one_host,
        )
    return Broken(
        f"the connection ended with packets of {_size(size)} under way: {error}",
        cause="the relay or the proxy hung up on a client that was admitted",
        next=target.read_log,
    )


class Left(Exception):
    """The relay sent PeerGone for one of our clients."""


class _Lossy(Exception):
    """Packets were lost, and no other proof was seen that may have been given them."""


async def _hold(target: Target, peer: ProbeClient, seconds: float) -> Sequence[float]:
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
                elif isinstance(event, Received):
                    peer.stream.leave_out(len(event.packet))  # of another proof
    except TimeoutError:
        return heard
    except (HungUp, ProtocolError, Flooded) as error:
        silence = time.perf_counter() - last
        raise Broken(
            f"an idle connection was cut after {silence:.1f} s of silence: {error}",
            cause="a proxy's time-out (nginx: proxy_read_timeout, 60 s) is not above our keep-alive's 65 s",
            next=target.redeploy(Part.FRONT, "set proxy_read_timeout 1h in the relay's location"),
        ) from None


def _size(size: int) -> str:
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size:,} B"
