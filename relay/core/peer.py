"""One key's connections and links, and which of them packets for it go to. No I/O, no clock.

The newest connection in all workers of this relay is the active one: the one that connected or
spoke last. The workers' clocks are the same (the machine's monotonic one), so each of them finds
the same. Links to other relays come behind.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from relay.core.handshake import ClientInfo
from relay.core.outbox import Outbox, Remote
from relay.core.reasons import Close
from relay.core.wire import PeerPresent


class Member(Protocol):
    """A local connection, as the tables and their readers see it. session.py implements it."""

    key: bytes
    info: ClientInfo
    is_mesh: bool
    sibling: bool
    not_ideal: bool
    address: IPv4Address | IPv6Address | None
    port: int
    serial: int
    connected_at: float
    since: float  # when it connected, or took over from another connection of its key
    outbox: Outbox
    home: bool
    rivals: bool
    heard: set[bytes] | None
    rx_packets: int
    rx_bytes: int
    rx_disco: int
    rx_forwarded: int

    def present(self) -> PeerPresent:
        """Describe the connection to watchers."""

    def hang_up(self, reason: Close) -> None:
        """Ask the I/O layer to end the connection."""


class MeshLink:
    """A mesh link to another relay, or to another worker process of this one (`sibling`)."""

    __slots__ = ("_forwarded", "met", "name", "outbox", "remotes", "sibling")

    def __init__(self, name: str, outbox: Outbox, *, sibling: bool = False) -> None:
        self.name = name
        self.outbox = outbox
        self.sibling = sibling
        self.met = False  # a sibling has announced all its clients
        self.remotes: dict[bytes, Remote] = {}  # clients of a sibling that packets are under way to
        self._forwarded = 0  # packets of remotes that were let go of
        outbox.set_current(True)

    @property
    def packets(self) -> int:
        """Return how many packets were forwarded so far."""
        return self.outbox.packets + self._forwarded + sum(remote.packets for remote in self.remotes.values())

    def remote(self, key: bytes) -> Remote:
        """Return the way to a sibling's client. Only while the link takes packets."""
        remote = self.remotes.get(key)
        if remote is None:
            remote = self.remotes[key] = Remote(self.outbox, key)
        return remote

    def let_go(self, key: bytes) -> None:
        """Send packets for this key another way from now on. Those in `pending` still leave."""
        remote = self.remotes.pop(key, None)
        if remote is not None:
            remote.set_current(False)
            self._forwarded += remote.packets
            remote.packets = 0

    def block(self) -> None:
        """Note that the link takes no more bytes.

        Packets wait in its own outbox, which drops the oldest.
        """
        self.outbox.block()
        for key in [*self.remotes]:
            self.let_go(key)

    def discard(self) -> None:
        """Drop every packet that has not left: the link is gone.

        That includes the packets of remotes that were let go of.
        """
        for key in [*self.remotes]:
            self.let_go(key)
        for outbox in self.outbox.dirty:
            if isinstance(outbox, Remote) and outbox.carrier is self.outbox:
                outbox.discard()
                self._forwarded += outbox.packets  # below 0: so many had been counted too many
                outbox.packets = 0
        self.outbox.discard()


class Peer:
    """The connections and links of one key. The one of `sessions` that spoke last is at the end.

    `active` is the local connection that packets go to. Without one, they go to `link`.
    """

    __slots__ = ("active", "dropped", "key", "link", "links", "sessions")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.sessions: list[Member] = []
        self.links: dict[MeshLink, PeerPresent] = {}  # in the order in which they announced the key
        self.active: Member | None = None
        self.link: MeshLink | None = None
        self.dropped = 0  # packets from this key that were dropped

    @property
    def latest(self) -> Member | None:
        """Return the local connection that spoke last, whether it is active or not."""
        return self.sessions[-1] if self.sessions else None

    @property
    def connections(self) -> int:
        """Return how many connections the key has, in all workers."""
        return len(self.sessions) + sum(self.links[link].connections for link in self.siblings)

    @property
    def siblings(self) -> list[MeshLink]:
        """Return the links to the other workers that have the key."""
        return [link for link in self.links if link.sibling]

    def settle(self) -> None:
        """Choose where packets go, after any change of connections and links.

        To the newest connection of all workers. Else to the oldest link to another relay that knows
        the key. A key with thousands of connections must not make each of their frames dear, so
        only the marks that change are set.
        """
        before = self.active
        newest = max(self.siblings, key=lambda link: self.links[link].since, default=None)
        self.link = newest or next(iter(self.links), None)
        self.active = self.latest
        if self.active is not None and newest is not None and self.links[newest].since > self.active.since:
            self.active = None
        if before is not self.active:
            if before is not None:
                before.outbox.set_current(False)
            if self.active is not None:
                self.active.outbox.set_current(True)
        rivals = self.connections > 1
        if self.sessions and self.sessions[0].rivals is not rivals:
            for session in self.sessions:
                session.rivals = rivals
        for link in self.links:
            if self.active is not None or link is not self.link:
                link.let_go(self.key)
