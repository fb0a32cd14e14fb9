"""Queues of a connection that takes no bytes: bounded, oldest dropped first, disco apart."""

from __future__ import annotations

import pytest

from relay.core import outbox as o
from relay.core import wire
from relay.core.outbox import DEPTH, Outbox
from tests.relay import vectors as v
from tests.relay.packing import pack_forward_packet, pack_recv_packet
from tests.relay.world import Socket, key

SOURCE = key("source")


class Drops:
    def __init__(self):
        self.cells = {}

    def __call__(self, reason, source, is_disco, packets, octets):
        cell = self.cells.setdefault((reason, source, is_disco), [0, 0])
        cell[0] += packets
        cell[1] += octets


@pytest.fixture
def drops():
    return Drops()


@pytest.fixture
def box(drops):
    box = Outbox([], drops, Socket())
    box.set_current(True)
    box.block()
    return box


def packets(*payloads: bytes, source: bytes = SOURCE) -> bytes:
    return b"".join(pack_recv_packet(source, payload) for payload in payloads)


def numbered(start: int, stop: int, source: bytes = SOURCE) -> bytes:
    return packets(*[n.to_bytes(4, "big") for n in range(start, stop)], source=source)


def taken(box, now=0.0):
    chunk, waited = box.take(now)
    return wire.FrameReader().receive(chunk), waited


def test_exactly_the_last_ones_survive(box, drops):
    box.queue(numbered(0, 10, key("early")), 41, key("early"), 1.0)
    box.queue(numbered(10, 60), 41, SOURCE, 2.0)
    box.queue(numbered(60, 61), 41, SOURCE, 3.0)
    assert drops.cells == {
        ("queue_head", SOURCE, False): [19, 76],
        ("queue_head", key("early"), False): [10, 40],
    }
    assert box.waiting == DEPTH
    box.unblock()
    frames, waited = taken(box, now=5.0)
    assert [int.from_bytes(payload[32:], "big") for _, payload in frames] == list(range(29, 61))
    assert waited == 3.0
    assert (box.packets, box.payload_octets) == (DEPTH, DEPTH * 4)


def test_disco_has_a_lane_of_its_own(box, drops):
    box.queue(packets(*[bytes(62)] * 40), 99, SOURCE, 0.0)
    box.queue(packets(b"T" * 62, v.SMALLEST_DISCO), 99, SOURCE, 0.0)  # a T alone is not disco
    box.queue(packets(*[v.SMALLEST_DISCO] * 33), 99, SOURCE, 0.0)
    assert drops.cells == {
        ("queue_head", SOURCE, False): [9, 9 * 62],
        ("queue_head", SOURCE, True): [2, 2 * 62],
    }
    box.unblock()
    assert len(taken(box)[0]) == 64


def test_new_packets_do_not_overtake_what_waits(box):
    box.queue(packets(b"old"), 40, SOURCE, 0.0)
    box.unblock()
    assert not box.ready
    box.queue(packets(b"new"), 40, SOURCE, 0.0)
    assert [payload[32:] for _, payload in taken(box)[0]] == [b"old", b"new"]
    assert box.ready


def test_what_waits_is_handed_over_in_parts(box):
    """So packets that the socket cannot take yet can still be dropped."""
    big = packets(bytes(38_000))
    for _ in range(5):
        box.queue(big, len(big), SOURCE, 0.0)
    box.unblock()
    assert [len(taken(box)[0]) for _ in range(3)] == [4, 1, 0]
    assert o.BATCH_BYTES < 4 * 38_000


def _kept(box):
    return sum(len(frame) for lane in (box._data, box._disco) for _, frame in lane or ())


@pytest.mark.parametrize("burst", [1, 7, 40])
def test_what_waits_is_bounded_in_bytes(box, drops, burst):
    """The newest packets stay, and each dropped one is counted."""
    size = wire.PACKET_HEAD_LEN + wire.MAX_PACKET
    for n in range(120 // burst):
        for first in (b"", wire.DISCO_MAGIC):
            frame = packets(first + bytes((n,)) * (wire.MAX_PACKET - len(first)))
            assert len(frame) == size
            box.queue(frame * burst, size, SOURCE, 0.0)
        assert _kept(box) == (box._data.octets + box._disco.octets) <= 320 * 1024
    stayed = [frame[-1] for _, frame in box._data]
    assert stayed == sorted(stayed) and stayed[-1] == n
    lost = sum(cell[0] for cell in drops.cells.values())
    assert lost + box.waiting == 120 // burst * burst * 2
    box.unblock()
    while taken(box)[0]:
        pass
    assert (box.waiting, box._data, box._disco) == (0, None, None)


def test_usual_packets_are_bounded_by_their_number(box, drops):
    full = packets(*[bytes(1440)] * DEPTH)
    box.queue(full, len(full) // DEPTH, SOURCE, 0.0)
    assert (box.waiting, drops.cells) == (DEPTH, {})


def test_a_mesh_links_lane_has_more_room(drops):
    box = Outbox([], drops, Socket(), mesh=True)
    frame = pack_forward_packet(SOURCE, key("far"), bytes(wire.MAX_PACKET))
    for _ in range(o.MESH_DEPTH):
        box.queue(frame, len(frame), SOURCE, 0.0)
    assert 3_000_000 < _kept(box) <= o.DATA_ROOM * o.MESH_DEPTH // DEPTH


def test_control_frames_wait_in_front_and_are_never_dropped(box):
    box.queue(packets(b"data"), 41, SOURCE, 0.0)
    for n in range(100):
        box.control(wire.pack_peer_gone(key(str(n)), 0))
    assert box.pong(b"12345678")
    assert not box.pong(b"87654321")
    box.unblock()
    frames, _ = taken(box)
    assert [kind for kind, _ in frames] == [wire.PEER_GONE] * 100 + [wire.PONG, wire.RECV_PACKET]
    assert box.pong(b"87654321")


def test_it_asks_to_be_written_once(drops):
    dirty = []
    box = Outbox(dirty, drops, Socket())
    box.set_current(True)
    assert box.ready
    box.put([packets(b"a")], 1)
    box.put([packets(b"b")], 1)
    box.control(wire.KEEP_ALIVE_FRAME)
    assert dirty == [box]
    taken(box)
    box.unblock()
    assert dirty == [box]


def test_what_is_left_at_the_end_is_dropped(drops):
    box = Outbox([], drops, Socket())
    box.set_current(True)
    box.put([packets(b"pending")], 1)
    box.control(wire.KEEP_ALIVE_FRAME)
    box.queue(packets(b"waiting"), 44, SOURCE, 0.0)
    box.queue(packets(v.SMALLEST_DISCO), 99, SOURCE, 0.0)
    box.discard()
    assert drops.cells == {
        ("gone_disconnected", SOURCE, False): [2, 14],
        ("gone_disconnected", SOURCE, True): [1, 62],
    }
    assert (box.packets, box.octets, box.waiting, box.pending, box.ready) == (0, 0, 0, [], False)


def test_a_mesh_link_has_longer_lanes(drops):
    box = Outbox([], drops, Socket(), mesh=True)
    frame = pack_forward_packet(SOURCE, key("far"), v.SMALLEST_DISCO)
    for _ in range(o.MESH_DEPTH + 1):
        box.queue(frame, len(frame), SOURCE, 0.0)
    assert drops.cells == {("queue_head", SOURCE, True): [1, 62]}
