"""The clients that are connected, and the ways that packets for their keys go.

No I/O; `clock` gives the time.

One `Switch` per process. A key may have several connections (a laptop that changed networks, a
cloned key): packets go to the one that connected or spoke last, the others stay. A key may also be
known through mesh links to other relays of the region; a local connection always wins over those.
Source of the rules: derp/derpserver/derpserver.go of tailscale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from relay.core.counts import Counts
from relay.core.handshake import ClientInfo
from relay.core.outbox import Outbox, Remote
from relay.core.reasons import Close, Drop
from relay.core.wire import GONE_DISCONNECTED, PeerPresent, pack_close_peer, pack_peer_gone, pack_peer_present


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

    __slots__ = ("_forwarded", "name", "outbox", "remotes", "sibling")

    def __init__(self, name: str, outbox: Outbox, *, sibling: bool = False) -> None:
        self.name = name
        self.outbox = outbox
        self.sibling = sibling
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
    """The connections and links of one key. The one of `sessions` that spoke last is at the end."""

    __slots__ = ("dropped", "key", "links", "sessions")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.sessions: list[Member] = []
        self.links: dict[MeshLink, PeerPresent] = {}  # in the order in which they announced the key
        self.dropped = 0  # packets from this key that were dropped

    @property
    def active(self) -> Member | None:
        """Return the local connection that packets go to."""
        return self.sessions[-1] if self.sessions else None

    @property
    def link(self) -> MeshLink | None:
        """Return the mesh link for packets when there is no local connection.

        It is the oldest that knows the key.
        """
        return next(iter(self.links), None)


class Switch:
    """The tables.

    The I/O layer reads `dirty` (outboxes to write) and `hangups` (sessions to end) after every
    call.
    """

    def __init__(self, clock: Callable[[], float], public_key: bytes) -> None:
        self.clock = clock
        self.public_key = public_key
        self.peers: dict[bytes, Peer] = {}
        # The clients that got packets from a key, and hear when it is gone.
        self.receivers: dict[bytes, set[Member]] = {}
        self.watchers: set[Member] = set()
        self.dirty: list[Outbox] = []
        self.hangups: dict[Member, Close] = {}  # sessions to end, and why
        self.backlog = 0  # bytes put into outboxes in this tick
        self.counts = Counts()
        # Packets and bytes.
        self.drops = {(reason, kind): [0, 0] for reason in Drop for kind in ("disco", "other")}
        self.sessions: set[Member] = set()
        self.mesh_links: set[MeshLink] = set()

    def drop(self, reason: Drop, source: bytes, is_disco: bool, packets: int, payload_bytes: int) -> None:
        """Account for packets that go nowhere."""
        cell = self.drops[reason, "disco" if is_disco else "other"]
        cell[0] += packets
        cell[1] += payload_bytes
        peer = self.peers.get(source)
        if peer is not None:
            peer.dropped += packets

    # Local connections.

    def register(self, session: Member) -> None:
        """Add an admitted client.

        It is the active connection of its key from now on, and watchers hear of it.
        """
        peer = self._peer(session.key)
        self.sessions.add(session)
        if peer.sessions:
            self.counts.total_dup_client_conns += 1
            peer.sessions[-1].outbox.set_current(False)
        peer.sessions.append(session)
        session.outbox.set_current(True)
        for link in peer.links:
            link.let_go(peer.key)
        self._mark_rivals(peer)
        if self.watchers and not session.sibling:
            self._notify_watchers(pack_peer_present(session.present()))

    def unregister(self, session: Member) -> None:
        """Remove a connection that ended.

        Its queued packets are dropped. If its key is gone with it, watchers and receivers of its
        packets hear of that.
        """
        self.sessions.remove(session)
        self.watchers.discard(session)
        session.outbox.discard()
        _add_traffic(self.counts, session)
        for key in session.heard or ():
            self._unsubscribe(session, key)
        peer = self.peers[session.key]
        peer.sessions.remove(session)
        if peer.active is not None:
            peer.active.outbox.set_current(True)
            self._mark_rivals(peer)
            return
        if not session.sibling:
            elsewhere = any(link.sibling for link in peer.links)
            self._notify_watchers(pack_peer_gone(peer.key, GONE_DISCONNECTED), external_too=not elsewhere)
        self._forget_if_gone(peer)

    def note_activity(self, session: Member) -> None:
        """Send packets for a key to this one of its connections from now on: it spoke."""
        sessions = self.peers[session.key].sessions
        if sessions[-1] is not session:
            sessions[-1].outbox.set_current(False)
            sessions.remove(session)
            sessions.append(session)
            session.outbox.set_current(True)

    def subscribe(self, receiver: Member, source: bytes) -> None:
        """Note that `receiver` gets packets from `source`.

        Once in its life it hears when that key is gone.
        """
        if receiver.heard is None:
            receiver.heard = set()
        if source not in receiver.heard:
            receiver.heard.add(source)
            self.receivers.setdefault(source, set()).add(receiver)

    def close_peer(self, key: bytes, *, siblings_too: bool) -> None:
        """Hang up on every connection of a key, those to other workers of this relay too."""
        peer = self.peers.get(key)
        if peer is None:
            return
        for session in peer.sessions:
            session.hang_up(Close.CLOSED_BY_MESH_PEER)
        for link in peer.links:
            if link.sibling and siblings_too:
                link.outbox.control(pack_close_peer(key))

    def watch(self, watcher: Member) -> None:
        """Send a mesh peer every client now, and every change from now on."""
        if watcher.key == self.public_key:
            return  # this relay, connected to itself
        self.watchers.add(watcher)
        for peer in self.peers.values():
            present = self._present(peer, external=not watcher.sibling)
            if present is not None:
                watcher.outbox.control(pack_peer_present(present))

    # Clients of other relays, as their mesh links announce them.

    def add_link(self, link: MeshLink) -> None:
        """Add a mesh link that is up."""
        self.mesh_links.add(link)

    def announce(self, link: MeshLink, present: PeerPresent) -> None:
        """Note that the relay behind `link` has this client."""
        if present.key == self.public_key:
            return
        peer = self._peer(present.key)
        if link in peer.links:
            return
        if len(peer.links) == 1:
            self.counts.multiforwarder_created += 1
        known = self._present(peer, external=True) is not None
        peer.links[link] = present
        if link.sibling and not known:
            self._notify_watchers(pack_peer_present(present), siblings_too=False)

    def withdraw(self, link: MeshLink, key: bytes) -> None:
        """Note that the relay behind `link` no longer has this client."""
        peer = self.peers.get(key)
        if peer is None or link not in peer.links:
            self.counts.packet_forwarder_delete_other_value += 1
            return
        del peer.links[link]
        link.let_go(key)
        if len(peer.links) == 1:
            self.counts.multiforwarder_deleted += 1
        if link.sibling and self._present(peer, external=True) is None:
            self._notify_watchers(pack_peer_gone(key, GONE_DISCONNECTED), siblings_too=False)
        self._forget_if_gone(peer)

    def remove_link(self, link: MeshLink) -> None:
        """Remove a broken mesh link. A client that was reachable through it alone is gone."""
        self.mesh_links.discard(link)
        link.discard()
        for key in [peer.key for peer in self.peers.values() if link in peer.links]:
            self.withdraw(link, key)
        self.counts.packets_forwarded_out += link.packets

    # Figures and checks.

    def totals(self) -> Counts:
        """Return every counter over the life of the process, with those of live connections."""
        totals = replace(self.counts)
        for session in self.sessions:
            _add_traffic(totals, session)
        totals.packets_forwarded_out += sum(link.packets for link in self.mesh_links)
        return totals

    def consistency_check(self) -> list[str]:
        """Return the contradictions found, one sentence each. None when all is well."""
        problems: list[str] = []
        local = [session for peer in self.peers.values() for session in peer.sessions]
        if set(local) != self.sessions or len(local) != len(self.sessions):
            problems.append(f"{len(self.sessions)} connections, but {len(local)} under their keys")
        for peer in self.peers.values():
            problems += self._check_peer(peer)
        if not self.watchers <= self.sessions:
            problems.append("a watcher is not connected")
        for key, receivers in self.receivers.items():
            if any(
                key not in (receiver.heard or ()) or receiver not in self.sessions for receiver in receivers
            ):
                problems.append(f"{key.hex()} has a receiver that does not know it")
        totals = self.totals()
        arrived = totals.packets_received + totals.packets_forwarded_in
        left = totals.packets_sent + totals.packets_forwarded_out
        dropped = sum(packets for packets, _ in self.drops.values())
        waiting = sum(
            member.outbox.waiting for members in (self.sessions, self.mesh_links) for member in members
        )
        if arrived != left + dropped + waiting:
            problems.append(
                f"{arrived} packets arrived, but {left} left, {dropped} were dropped and {waiting} wait"
            )
        return problems

    def _check_peer(self, peer: Peer) -> Iterable[str]:
        name = peer.key.hex()
        if not peer.sessions and not peer.links:
            yield f"{name} is known, but not connected"
        if any(session.outbox.current is not (session is peer.active) for session in peer.sessions):
            yield f"{name} has a wrong active connection"
        if any(session.rivals is not (len(peer.sessions) > 1) for session in peer.sessions):
            yield f"{name} has a wrong mark of duplicates"

    def _peer(self, key: bytes) -> Peer:
        peer = self.peers.get(key)
        if peer is None:
            peer = self.peers[key] = Peer(key)
        return peer

    def _mark_rivals(self, peer: Peer) -> None:
        for session in peer.sessions:
            session.rivals = len(peer.sessions) > 1

    def _present(self, peer: Peer, *, external: bool) -> PeerPresent | None:
        """Describe a key to watchers. Return None if they are not to see it.

        They see local clients. Relays other than our own workers also see those of our workers.
        """
        if peer.active is not None:
            return None if peer.active.sibling else peer.active.present()
        if external:
            return next((present for link, present in peer.links.items() if link.sibling), None)
        return None

    def _notify_watchers(self, frame: bytes, *, external_too: bool = True, siblings_too: bool = True) -> None:
        for watcher in self.watchers:
            if siblings_too if watcher.sibling else external_too:
                watcher.outbox.control(frame)

    def _forget_if_gone(self, peer: Peer) -> None:
        """Forget a key that left the region, and report that to receivers of its packets."""
        if peer.sessions or peer.links:
            return
        del self.peers[peer.key]
        receivers = self.receivers.pop(peer.key, set())
        self.counts.peer_gone_disconnected_frames += len(receivers)
        for receiver in receivers:
            receiver.outbox.control(pack_peer_gone(peer.key, GONE_DISCONNECTED))

    def _unsubscribe(self, receiver: Member, source: bytes) -> None:
        receivers = self.receivers.get(source, set())
        receivers.discard(receiver)
        if not receivers:
            self.receivers.pop(source, None)


def _add_traffic(counts: Counts, session: Member) -> None:
    """Add the counters that a connection keeps itself."""
    counts.packets_received += session.rx_packets
    counts.bytes_received += session.rx_bytes
    counts.packets_received_disco += session.rx_disco
    counts.packets_forwarded_in += session.rx_forwarded
    counts.packets_sent += session.outbox.packets
    counts.bytes_sent += session.outbox.payload_octets
