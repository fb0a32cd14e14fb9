"""The news that clients and watchers get: peers gone, duplicates, presence, as derper has it."""

from ipaddress import ip_address

import pytest

from relay.core import wire
from relay.core.wire import PeerPresent, ProtocolError
from tests.relay import vectors as v
from tests.relay.clients import SERVER, Room, feed, frames, key_of, presents, received, send, watch
from tests.relay.packing import pack_note_preferred


@pytest.fixture
def room():
    return Room()


# Peer gone (4.8)


def test_only_receivers_of_packets_hear_and_once_in_their_life(room):
    a, b, c = (room.join(i) for i in (1, 2, 3))
    feed(a, send(2, b"hi"))
    frames(room, b)
    room.switch.unregister(a)
    assert frames(room, b) == [(wire.PEER_GONE, key_of(1) + b"\0")] and frames(room, c) == []
    a = room.join(1)
    feed(a, send(2, b"again"))
    room.switch.unregister(a)
    assert frames(room, b) == [received(1, b"again")], "the same connection is not told a second time"


def test_the_sender_hears_nothing_when_its_receiver_leaves(room):
    a, b = room.join(1), room.join(2)
    feed(a, send(2, b"hi"))
    room.switch.unregister(b)
    assert frames(room, a) == []


def test_of_several_connections_the_last_one_counts(room):
    a, again, b = room.join(1), room.join(1), room.join(2)
    feed(a, send(2, b"hi"))
    frames(room, b)
    room.switch.unregister(a)
    assert frames(room, b) == []
    room.switch.unregister(again)
    assert frames(room, b) == [(wire.PEER_GONE, key_of(1) + b"\0")]


def test_a_new_connection_of_the_receiver_hears_too(room):
    a, b = room.join(1), room.join(2)
    feed(a, send(2, b"hi"))
    room.switch.unregister(b)
    b = room.join(2)
    feed(a, send(2, b"hi"))
    frames(room, b)
    room.switch.unregister(a)
    assert frames(room, b) == [(wire.PEER_GONE, key_of(1) + b"\0")]


# Duplicates (4.10)


def test_the_connection_that_spoke_last_gets_the_packets(room):
    """The vector: 1 then 2 with the same key; X sends; 1 pings; X sends."""
    first, second, x = room.join(1), room.join(1), room.join(2)
    feed(x, send(1, b"one"))
    assert frames(room, second) == [received(2, b"one")] and frames(room, first) == []
    feed(first, wire.pack_ping(b"12345678"))
    assert frames(room, first) == [(wire.PONG, b"12345678")]
    feed(x, send(1, b"two"))
    assert frames(room, first) == [received(2, b"two")] and frames(room, second) == []


@pytest.mark.parametrize(
    "frame", [pack_note_preferred(True), wire.pack_frame(0x7F, b"?"), send(9, b"x")]
)
def test_any_frame_makes_a_connection_the_active_one(room, frame):
    first, second = room.join(1), room.join(1)
    feed(first, frame)
    assert first.outbox.current and not second.outbox.current
    assert room.switch.consistency_check() == []


def test_when_the_active_one_leaves_the_one_that_spoke_before_it_follows(room):
    first, second, third = (room.join(1) for _ in range(3))
    feed(first, pack_note_preferred(True))
    feed(third, pack_note_preferred(True))
    room.switch.unregister(third)
    assert first.outbox.current and first.rivals and second.rivals
    room.switch.unregister(first)
    assert second.outbox.current and not second.rivals
    assert room.switch.totals().total_dup_client_conns == 2


def test_of_silent_connections_the_newest_that_is_left_follows(room):
    """derper goes back to the oldest: it does not note that the second one came."""
    first, second, third = (room.join(1) for _ in range(3))
    room.switch.unregister(third)
    assert second.outbox.current and not first.outbox.current


# Watchers (4.9)


def test_a_watcher_sees_itself_every_client_each_arrival_and_each_departure(room):
    room.join(1, "203.0.113.7", 51820, app="tailcat")
    w = watch(room, 8, address="2001:db8::7", port=443)
    seen = {peer.key: peer for peer in presents(frames(room, w))}
    assert seen[key_of(1)] == PeerPresent(
        key_of(1), ip_address("203.0.113.7"), 51820, wire.PRESENT_REGULAR, "tailcat"
    )
    assert seen[key_of(8)].flags == wire.PRESENT_MESH_PEER and len(seen) == 2
    late = room.join(2, None, prober=True, not_ideal=True)
    (peer,) = presents(frames(room, w))
    assert (peer.address, peer.flags) == (None, wire.PRESENT_PROBER | wire.PRESENT_NOT_IDEAL)
    room.switch.unregister(late)
    assert frames(room, w) == [(wire.PEER_GONE, key_of(2) + b"\0")]


def test_present_for_every_connection_of_a_key_and_gone_for_the_last(room):
    w = watch(room, 8)
    frames(room, w)
    first, second = room.join(1), room.join(1)
    assert len(presents(frames(room, w))) == 2
    room.switch.unregister(first)
    assert frames(room, w) == []
    room.switch.unregister(second)
    assert frames(room, w) == [(wire.PEER_GONE, key_of(1) + b"\0")]


def test_a_second_watch_repeats_everything(room):
    w = watch(room, 8)
    frames(room, w)
    feed(w, wire.WATCH_CONNS_FRAME)
    assert len(presents(frames(room, w))) == 1


def test_the_relay_does_not_watch_itself(room):
    w = watch(room, SERVER[0])
    room.join(1)
    assert frames(room, w) == []


def test_close_peer_ends_every_connection_of_a_key_and_no_other(room):
    mesh, first, second, other = room.join(8, is_mesh=True), room.join(1), room.join(1), room.join(2)
    feed(mesh, wire.pack_close_peer(key_of(1)) + wire.pack_close_peer(key_of(9)))
    assert set(room.switch.hangups) == {first, second} and other not in room.switch.hangups
    assert frames(room, mesh) == []


@pytest.mark.parametrize("frame", [wire.WATCH_CONNS_FRAME, v.FORWARD_FRAME, v.CLOSE_PEER_FRAME])
def test_mesh_frames_of_anybody_else_close(room, frame):
    with pytest.raises(ProtocolError, match="not_a_mesh_peer"):
        feed(room.join(1), frame)
