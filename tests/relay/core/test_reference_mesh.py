"""Several relays of one region, as derper has them.

From its source and its own tests (protocol notes, sections 4, 5, 13.5 and 14), on the pure core: a
room of clients without sockets. `blocked` ones take no bytes, as a receiver that stopped reading.
"""

from relay.core import wire
from relay.core.wire import PeerPresent
from tests.relay.clients import DISCO, Room, drops, feed, frames, key_of, link, received, send
from tests.relay.packing import pack_forward_packet


def test_a_forwarded_packet_shows_its_first_sender():
    room = Room()
    mesh, b = room.join(8, is_mesh=True), room.join(2)
    feed(mesh, pack_forward_packet(key_of(7), key_of(2), b"far"))
    assert frames(room, b) == [received(7, b"far")]
    totals = room.switch.totals()
    assert totals.packets_forwarded_in == 1 and totals.packets_received == 0 and totals.bytes_received == 0


def test_nothing_is_forwarded_twice():
    room = Room()
    mesh, other = room.join(8, is_mesh=True), link(room, "fra2")
    room.switch.announce(other, PeerPresent(key_of(3)))
    feed(
        mesh,
        pack_forward_packet(key_of(7), key_of(3), DISCO)
        + pack_forward_packet(key_of(7), key_of(3), b"data"),
    )
    assert other.outbox.take(room.now)[0] == b""
    assert frames(room, mesh) == [(wire.PEER_GONE, key_of(3) + b"\x01")]
    assert drops(room) == {"unknown_dest_on_fwd/disco": 1, "unknown_dest_on_fwd/other": 1}


def test_a_packet_for_another_relays_client_takes_the_oldest_link():
    room = Room()
    a, first, second = room.join(1), link(room, "fra1"), link(room, "fra2")
    for each in (first, second, first):
        room.switch.announce(each, PeerPresent(key_of(3)))
    forwarded = pack_forward_packet(key_of(1), key_of(3), b"x")
    feed(a, send(3, b"x"))
    assert (first.outbox.take(0)[0], second.outbox.take(0)[0]) == (forwarded, b"")
    room.switch.withdraw(first, key_of(3))
    feed(a, send(3, b"x"))
    assert (first.outbox.take(0)[0], second.outbox.take(0)[0]) == (b"", forwarded)
    totals = room.switch.totals()
    assert (totals.multiforwarder_created, totals.multiforwarder_deleted, totals.packets_forwarded_out) == (
        1,
        1,
        2,
    )


def test_local_wins_over_mesh_from_the_moment_it_connects():
    room = Room()
    a, mesh = room.join(1), link(room, "fra1")
    room.switch.announce(mesh, PeerPresent(key_of(3)))
    feed(a, send(3, b"far"))
    c = room.join(3)
    feed(a, send(3, b"near"))
    assert frames(room, c) == [received(1, b"near")]
    mesh.outbox.take(0)
    room.switch.unregister(c)
    feed(a, send(3, b"far"))
    assert mesh.outbox.take(0)[0] == pack_forward_packet(key_of(1), key_of(3), b"far")


def test_a_broken_link_takes_its_clients_away():
    room = Room()
    a, mesh, incoming = room.join(1), link(room, "fra1"), room.join(8, is_mesh=True)
    room.switch.announce(mesh, PeerPresent(key_of(3)))
    feed(incoming, pack_forward_packet(key_of(3), key_of(1), b"hi"))
    frames(room, a)
    room.switch.remove_link(mesh)
    assert frames(room, a) == [(wire.PEER_GONE, key_of(3) + b"\0")]
    feed(a, send(3, DISCO))
    assert frames(room, a) == [(wire.PEER_GONE, key_of(3) + b"\x01")]


def test_strangers_cannot_withdraw():
    room = Room()
    a, mesh, stranger = room.join(1), link(room, "fra1"), link(room, "fra2")
    room.switch.announce(mesh, PeerPresent(key_of(3)))
    room.switch.withdraw(stranger, key_of(3))
    feed(a, send(3, b"x"))
    assert mesh.outbox.take(0)[0] and room.switch.totals().packet_forwarder_delete_other_value == 1


def test_a_forward_without_a_sender_is_dropped():
    room = Room()
    mesh, b = room.join(8, is_mesh=True), room.join(2)
    feed(mesh, pack_forward_packet(bytes(32), key_of(2), b"from nobody"))
    assert frames(room, b) == []
