"""Packets between relays: to a client of another one, and from another one to a local client.

No I/O.

A FORWARD_PACKET is 32 bytes longer than the packet that it carries, so frames are put together anew
here, unlike in session.py; yet whole runs at a time. Workers of one relay use a shorter form
(FORWARD_RUN): a run behind a single key. Each function gets the session that the frames came from,
and returns where the next frame starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Final

from relay.core import wire
from relay.core.outbox import Outbox, frames_in
from relay.core.reasons import Breach, Drop
from relay.core.wire import HEADER, HEADER_LEN, KEY_LEN, PACKET_HEAD_LEN, ProtocolError

if TYPE_CHECKING:
    from relay.core.peer import MeshLink
    from relay.core.session import Session

MAX_ROUTES: Final = 1024  # ways that a connection remembers, here and in session.py
_FORWARD_HEAD_LEN: Final = PACKET_HEAD_LEN + KEY_LEN
_HEAD: Final = Struct(f"{PACKET_HEAD_LEN}s")
_FORWARD_HEAD: Final = Struct(f"{_FORWARD_HEAD_LEN}s")


def to_relay(
    session: Session, link: MeshLink, buffer: bytearray, position: int, end: int, *, size: int
) -> int:
    """Pass on a client's packets, in frames of `size` bytes, to a client behind `link`."""
    destination = buffer[position + HEADER_LEN : position + PACKET_HEAD_LEN]
    front = HEADER.pack(wire.FORWARD_PACKET, size - HEADER_LEN + KEY_LEN) + session.key + destination
    return _pass_on(
        session, link.outbox, buffer, position, end, source=session.key, size=size, old=_HEAD, front=front
    )


def from_relay(session: Session, buffer: bytearray, position: int, end: int, size: int) -> int:
    """Pass on packets from a mesh peer to a local client.

    Packets from outside may be for a client of another worker of this relay.
    """
    head = _FORWARD_HEAD.unpack_from(buffer, position)[0]
    source, destination = head[HEADER_LEN:PACKET_HEAD_LEN], head[PACKET_HEAD_LEN:]
    outbox = _way(session, source, destination)
    after = position + size
    if outbox is not None:
        front = HEADER.pack(wire.RECV_PACKET, size - HEADER_LEN - KEY_LEN) + source
        after = _pass_on(
            session, outbox, buffer, position, end, source=source, size=size, old=_FORWARD_HEAD, front=front
        )
    elif (link := _sibling_of(session, destination)) is not None and any(source):
        after = _pass_on(
            session,
            link.outbox,
            buffer,
            position,
            end,
            source=source,
            size=size,
            old=_FORWARD_HEAD,
            front=head,
        )
    else:
        session.lost(
            Drop.UNKNOWN_DEST_ON_FWD, source, destination, bytes(buffer[position + _FORWARD_HEAD_LEN : after])
        )
    session.rx_forwarded += (after - position) // size
    return after


def from_worker(session: Session, buffer: bytearray, position: int, end: int, after: int) -> int:
    """Pass on a run of frames that another worker's `Remote` made.

    The frames are of one source, and the local client gets them as they are. Return -1 while they
    are not whole.
    """
    first = position + PACKET_HEAD_LEN
    if after - first > wire.MAX_RUN:
        raise ProtocolError(Breach.OVERSIZED_RUN)
    if after > end:
        return -1
    destination = bytes(buffer[position + HEADER_LEN : first])
    source = bytes(buffer[first + HEADER_LEN : first + PACKET_HEAD_LEN])
    packets, at, header_at = 0, first, HEADER.unpack_from
    while at < after:
        at += HEADER_LEN + header_at(buffer, at)[1]
        packets += 1
    if at != after:
        raise ProtocolError(Breach.BAD_RUN)
    outbox, run = _way(session, source, destination), buffer[first:after]
    if outbox is not None and outbox.ready:
        outbox.put((run,), packets)
        session.switch.backlog += len(run)
    else:
        for frame in frames_in(bytes(run)):
            if outbox is not None:
                outbox.queue(frame, len(frame), source, session.switch.clock())
            else:
                session.lost(Drop.UNKNOWN_DEST_ON_FWD, source, destination, frame[PACKET_HEAD_LEN:])
    session.rx_forwarded += packets
    return after


def _pass_on(
    session: Session,
    outbox: Outbox,
    buffer: bytearray,
    position: int,
    end: int,
    *,
    source: bytes,
    size: int,
    old: Struct,
    front: bytes,
) -> int:
    """Pass on a run of frames whose length changes.

    Each has the same `old` head and gets `front` for it.
    """
    (head,) = old.unpack_from(buffer, position)
    pieces: list[bytes] = []
    whole = memoryview(buffer)[position : end - (end - position) % size]
    for found, body in _heads_and_bodies(old.size, size)(whole):
        if found != head:
            break
        pieces += (front, body)
    count = len(pieces) // 2
    session.switch.backlog += count * (size - old.size + len(front))
    if outbox.ready:
        outbox.put(pieces, count)
    else:
        outbox.queue(b"".join(pieces), size - old.size + len(front), source, session.switch.clock())
    return position + count * size


def _way(session: Session, source: bytes, destination: bytes) -> Outbox | None:
    """Return the outbox of the local client that a mesh peer's packet is for.

    Return None when there is no such client, or the packet names no sender. A packet that another
    worker sent goes no further, also when the client has just come to a third one.
    """
    routes = session.forward_routes
    outbox = routes.get((source, destination))
    if outbox is not None and outbox.current:
        return outbox
    peer = session.switch.peers.get(destination)
    receiver = None if peer is None else peer.latest if session.sibling else peer.active
    if receiver is None or not any(source):
        return None
    session.switch.subscribe(receiver, source)
    if len(routes) >= MAX_ROUTES:
        routes.clear()
    routes[source, destination] = receiver.outbox
    return receiver.outbox


def _sibling_of(session: Session, destination: bytes) -> MeshLink | None:
    """Return the link to another worker of this relay that has the key.

    Return None for packets that a worker sent: one hop is enough.
    """
    peer = session.switch.peers.get(destination)
    link = peer.link if peer is not None and not session.sibling else None
    return link if link is not None and link.sibling else None


@lru_cache(maxsize=2048)
def _heads_and_bodies(head: int, size: int) -> Callable[[memoryview], Iterator[tuple[bytes, bytes]]]:
    """Return a walk along frames of `size` bytes: their first `head` bytes and the rest."""
    return Struct(f"{head}s{size - head}s").iter_unpack
