"""The clients that are connected, and the ways that packets for their keys go.

No I/O; `clock` gives the time.

One `Switch` per process. A key may have several connections (a laptop that changed networks, a
cloned key), also in other workers of this relay: packets go to the one that connected or spoke
last, the others stay. A key may also be known through mesh links to other relays of the region;
this relay's own connections always win over those.
Source of the rules: derp/derpserver/derpserver.go of tailscale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from relay.core.confirmations import Confirmations
from relay.core.counts import Counts
from relay.core.outbox import Outbox
from relay.core.peer import Member, MeshLink, Peer
from relay.core.reasons import Close, Drop
from relay.core.wire import (
    GONE_DISCONNECTED,
    PeerPresent,
    pack_close_peer,
    pack_peer_gone,
    pack_peer_present,
    pack_peer_state,
    pack_ping,
)


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
        self.watchers: set[Member] = set()  # other relays that hear of every client
        self.siblings: set[Member] = set()  # and other workers of this one
        self.dirty: list[Outbox] = []
        self.hangups: dict[Member, Close] = {}  # sessions to end, and why
        self.backlog = 0  # bytes put into outboxes in this tick
        self.counts = Counts()
        # Packets and bytes.
        self.drops = {(reason, kind): [0, 0] for reason in Drop for kind in ("disco", "other")}
        self.sessions: set[Member] = set()
        self.mesh_links: set[MeshLink] = set()
        self.confirmations = Confirmations()

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
        if peer.connections:
            self.counts.total_dup_client_conns += 1
            session.rivals = True
        peer.sessions.append(session)
        peer.settle()
        if self.watchers and not session.sibling:
            self._notify(pack_peer_present(session.present()))
        self._notify_siblings(peer)

    def unregister(self, session: Member) -> None:
        """Remove a connection that ended.

        Its queued packets are dropped. If its key is gone with it, watchers and receivers of its
        packets hear of that.
        """
        self.sessions.remove(session)
        self.watchers.discard(session)
        self.siblings.discard(session)
        session.outbox.discard()
        _add_traffic(self.counts, session)
        for key in session.heard or ():
            self._unsubscribe(session, key)
        peer = self.peers[session.key]
        peer.sessions.remove(session)
        peer.settle()
        self._notify_siblings(peer)
        if session.sibling:
            self.confirmations.forget(session)
        else:
            self._notify_if_gone(peer)
        self._forget_if_gone(peer)

    def note_activity(self, session: Member) -> None:
        """Send packets for a key to this one of its connections from now on: it spoke."""
        peer = self.peers[session.key]
        if peer.active is not session:
            session.since = self.clock()
            peer.sessions.remove(session)
            peer.sessions.append(session)
            peer.settle()
            self._notify_siblings(peer)

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
        (self.siblings if watcher.sibling else self.watchers).add(watcher)
        for peer in self.peers.values():
            frame = _pack_state(peer) if watcher.sibling else self._pack_present(peer)
            if frame:
                watcher.outbox.control(frame)
        if watcher.sibling:
            watcher.outbox.control(pack_ping(bytes(8)))  # so that it knows that this was all

    # Clients of other relays, as their mesh links announce them.

    def add_link(self, link: MeshLink) -> None:
        """Add a mesh link that is up."""
        self.mesh_links.add(link)

    @property
    def met(self) -> int:
        """Return how many other workers have announced all their clients here."""
        return sum(link.met for link in self.mesh_links if link.sibling)

    def announce(self, link: MeshLink, present: PeerPresent) -> None:
        """Note that the relay behind `link` has this client.

        Another worker announces each change of its connections, and other relays' watchers hear of
        each new one.
        """
        if present.key == self.public_key:
            return
        peer = self._peer(present.key)
        before = peer.links.get(link)
        if before is not None and not link.sibling:
            return
        peer.links[link] = present
        peer.settle()
        if not link.sibling:
            self.counts.multiforwarder_created += _outside_links(peer) == 2
        elif before is None or present.connections > before.connections:
            self._notify(pack_peer_present(present))

    def withdraw(self, link: MeshLink, key: bytes) -> None:
        """Note that the relay behind `link` no longer has this client."""
        peer = self.peers.get(key)
        if peer is None or link not in peer.links:
            self.counts.packet_forwarder_delete_other_value += not link.sibling
            return
        del peer.links[link]
        link.let_go(key)
        peer.settle()
        if link.sibling:
            self._notify_if_gone(peer)
        else:
            self.counts.multiforwarder_deleted += _outside_links(peer) == 1
        self._forget_if_gone(peer)

    def remove_link(self, link: MeshLink) -> None:
        """Remove a broken mesh link. A client that was reachable through it alone is gone."""
        self.mesh_links.discard(link)
        link.discard()
        for key in [peer.key for peer in self.peers.values() if link in peer.links]:
            self.withdraw(link, key)
        _add_forwarded(self.counts, link)

    # Figures and checks.

    def totals(self) -> Counts:
        """Return every counter over the life of the process, with those of live connections."""
        totals = replace(self.counts)
        for session in self.sessions:
            _add_traffic(totals, session)
        for link in self.mesh_links:
            _add_forwarded(totals, link)
        return totals

    def consistency_check(self) -> list[str]:
        """Return the contradictions found, one sentence each. None when all is well."""
        problems: list[str] = []
        local = [session for peer in self.peers.values() for session in peer.sessions]
        if set(local) != self.sessions or len(local) != len(self.sessions):
            problems.append(f"{len(self.sessions)} connections, but {len(local)} under their keys")
        for peer in self.peers.values():
            problems += self._check_peer(peer)
        if not self.watchers | self.siblings <= self.sessions:
            problems.append("a watcher is not connected")
        for key, receivers in self.receivers.items():
            if any(
                key not in (receiver.heard or ()) or receiver not in self.sessions for receiver in receivers
            ):
                problems.append(f"{key.hex()} has a receiver that does not know it")
        totals = self.totals()
        arrived = totals.packets_received + totals.packets_forwarded_in + totals.packets_from_workers
        left = totals.packets_sent + totals.packets_forwarded_out + totals.packets_to_workers
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
        if any(session.rivals is not (peer.connections > 1) for session in peer.sessions):
            yield f"{name} has a wrong mark of duplicates"

    def _peer(self, key: bytes) -> Peer:
        peer = self.peers.get(key)
        if peer is None:
            peer = self.peers[key] = Peer(key)
        return peer

    def _pack_present(self, peer: Peer) -> bytes | None:
        """Describe a key to watchers. Return None if no worker of this relay has it as a client."""
        if peer.active is not None:
            return None if peer.active.sibling else pack_peer_present(peer.active.present())
        if peer.link is not None and peer.link.sibling:
            return pack_peer_present(peer.links[peer.link])
        return None

    def _notify(self, frame: bytes) -> None:
        for watcher in self.watchers:
            watcher.outbox.control(frame)

    def _notify_siblings(self, peer: Peer) -> None:
        """Send the other workers the state of this one's connections of a key."""
        if self.siblings:
            frame = _pack_state(peer) or pack_peer_gone(peer.key, GONE_DISCONNECTED)
            for sibling in self.siblings:
                sibling.outbox.control(frame)

    def _notify_if_gone(self, peer: Peer) -> None:
        """Report to watchers if no worker has a key any more."""
        if self._pack_present(peer) is None:
            self._notify(pack_peer_gone(peer.key, GONE_DISCONNECTED))

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
    if session.sibling:
        counts.packets_from_workers += session.rx_forwarded
    else:
        counts.packets_forwarded_in += session.rx_forwarded
    counts.packets_sent += session.outbox.packets
    counts.bytes_sent += session.outbox.payload_octets


def _add_forwarded(counts: Counts, link: MeshLink) -> None:
    """Add the packets that a mesh link carried."""
    if link.sibling:
        counts.packets_to_workers += link.packets
    else:
        counts.packets_forwarded_out += link.packets


def _pack_state(peer: Peer) -> bytes | None:
    """Describe a key to another worker. Return None if it is no client of this one."""
    latest = peer.latest
    if latest is None or latest.sibling:
        return None
    return pack_peer_state(replace(latest.present(), connections=len(peer.sessions), since=latest.since))


def _outside_links(peer: Peer) -> int:
    return len(peer.links) - len(peer.siblings)
