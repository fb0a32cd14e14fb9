"""A timer, twice a second: keep-alives, late handshakes, clients that take no bytes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from heapq import heappop, heappush
from random import uniform
from typing import TYPE_CHECKING, Final

from relay.core.reasons import Close
from relay.core.wire import KEEP_ALIVE_FRAME
from relay.io.tcpinfo import read_rtt_us

if TYPE_CHECKING:
    from relay.core.counts import Counts
    from relay.core.stats import Tally
    from relay.io.arrival import Arrival
    from relay.io.link import Link
    from relay.io.loop import Loop

PERIOD_S: Final = 0.5
KEEP_ALIVE_S: Final = 60.0
# Drawn once per connection, so that ten thousand of them do not speak at once.
KEEP_ALIVE_JITTER_S: Final = 5.0
MESH_WRITE_TIMEOUT_S: Final = 30.0


class ResidentMemory:
    """The memory of this process that is in RAM.

    It opens its one descriptor early: there may be none left when it matters.
    """

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        self._page = os.sysconf("SC_PAGE_SIZE")

    def read(self) -> int:
        """Return its size in bytes."""
        return int(os.pread(self._statm, 128, 0).split()[1]) * self._page


class Sweep:
    """One timer for all connections."""

    def __init__(
        self,
        loop: Loop,
        tally: Tally,
        counts: Counts,
        arrivals: Collection[Arrival],
        links: Mapping[int, Link],
        *,
        memory_ceiling_mib: int,
        write_timeout_s: float,
    ) -> None:
        self.full = False  # above the memory ceiling
        self._loop = loop
        self._tally = tally
        self._counts = counts
        self._arrivals = arrivals
        self._links = links  # by serial number
        self._memory = ResidentMemory() if memory_ceiling_mib else None
        self._memory_ceiling = memory_ceiling_mib * 2**20
        self._write_timeout_s = write_timeout_s
        self._keep_alives: list[tuple[float, int]] = []  # heap of (due, link's serial number)
        self._blocked: dict[Link, tuple[float, int]] = {}  # since when, with how many bytes unsent

    def start(self) -> None:
        """Begin. The timer starts itself again."""
        self._loop.call_later(PERIOD_S, self.start)
        self.run(self._loop.time())

    def add(self, link: Link, serial: int) -> None:
        """Keep a new client alive."""
        # Random to spread the load, not to hide something.
        link.keep_alive_s = KEEP_ALIVE_S + uniform(0, KEEP_ALIVE_JITTER_S)  # noqa: S311
        heappush(self._keep_alives, (self._loop.time() + link.keep_alive_s, serial))

    def block(self, link: Link) -> None:
        """Note that the kernel takes no more bytes for this client."""
        self._blocked[link] = (self._loop.time(), link.stream.unsent)

    def unblock(self, link: Link) -> None:
        """Note that the kernel takes bytes again, or the client is gone."""
        self._blocked.pop(link, None)

    def run(self, now: float) -> None:
        """Do one round at `now`."""
        for arrival in [arrival for arrival in self._arrivals if arrival.deadline < now]:
            arrival.expire()
        for link, (since, size) in [*self._blocked.items()]:
            self._check_blocked(link, since, size, now)
        while self._keep_alives and self._keep_alives[0][0] <= now:
            self._keep_alive(heappop(self._keep_alives)[1], now)
        if self._memory is not None:
            self.full = self._memory.read() > self._memory_ceiling

    def _keep_alive(self, serial: int, now: float) -> None:
        link = self._links.get(serial)
        if link is None or link.session is None:
            return
        link.session.outbox.control(KEEP_ALIVE_FRAME)
        link.session.trim()
        self._tally.note_rtt(read_rtt_us(link.stream.socket))
        heappush(self._keep_alives, (now + link.keep_alive_s, serial))

    def _check_blocked(self, link: Link, since: float, size: int, now: float) -> None:
        """Hang up when the kernel took nothing for the write timeout."""
        left = link.stream.unsent
        if left < size:
            self._blocked[link] = (now, left)
            return
        is_mesh = link.session is not None and link.session.is_mesh
        limit_s = MESH_WRITE_TIMEOUT_S if is_mesh else self._write_timeout_s
        if limit_s and now - since >= limit_s:
            self._counts.sclient_write_timeouts += 1
            link.end(Close.WRITE_TIMEOUT)
