"""Packets between the workers of one relay: runs of frames as the client is to get them, behind one
head.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import wire
from relay.core.forward import MAX_ROUTES
from relay.core.wire import ProtocolError
from tests.relay import vectors as v
from tests.relay.world import MeshLink, World, key

FAR = key("far")


@pytest.fixture
def worker(world):
    worker = world.link("worker 2", sibling=True)
    worker.has("far")
    return worker


@pytest.fixture
def sibling(world):
    """Connect the other end of such a link, in the other worker."""
    return world.connect("sibling", is_mesh=True, sibling=True)


def received(source: bytes, *packets: bytes) -> bytes:
    return b"".join(wire.pack_frame(wire.RECV_PACKET, source + packet) for packet in packets)


def pack_run(destination: bytes, frames: bytes) -> bytes:
    return wire.pack_frame(wire.FORWARD_RUN, destination + frames)


def runs(link: MeshLink) -> list[tuple[bytes, bytes]]:
    heard = link.hears()
    assert {kind for kind, _ in heard} <= {wire.FORWARD_RUN}
    return [(payload[:32], payload[32:]) for _, payload in heard]


def test_packets_for_another_workers_client_travel_in_runs(world, alice, worker):
    packets = [b"one", b"two", b"longer", v.SMALLEST_DISCO]
    alice.says(*[wire.pack_send_packet(FAR, packet) for packet in packets])
    alice.sends(FAR, b"next read")
    assert runs(worker) == [(FAR, received(alice.key, *packets)), (FAR, received(alice.key, b"next read"))]
    assert world.switch.totals().packets_to_workers == 5
    assert (alice.session.rx_packets, alice.session.rx_disco) == (5, 1)


def test_runs_of_several_sources_stay_apart(world, alice, worker):
    carol = world.connect("carol")
    alice.sends(FAR, b"a")
    carol.sends(FAR, b"c")
    assert runs(worker) == [(FAR, received(alice.key, b"a")), (FAR, received(carol.key, b"c"))]


def test_while_the_link_is_blocked_packets_wait_in_its_outbox(world, alice, worker):
    alice.sends(FAR, b"1")
    assert runs(worker) == [(FAR, received(alice.key, b"1"))]
    worker.link.block()
    alice.sends(FAR, b"2")
    alice.sends(FAR, b"3")
    assert worker.hears() == []
    worker.link.outbox.unblock()
    alice.sends(FAR, b"4")
    assert worker.hears() == [
        (wire.FORWARD_PACKET, alice.key + FAR + packet) for packet in (b"2", b"3", b"4")
    ]
    alice.sends(FAR, b"5")
    assert runs(worker) == [(FAR, received(alice.key, b"5"))]
    assert world.switch.totals().packets_to_workers == 5


def test_a_client_that_comes_here_gets_the_rest_here(world, alice, worker):
    alice.sends(FAR, b"there")
    far = world.connect("far")
    alice.sends(FAR, b"here")
    assert far.gets() == [(alice.key, b"here")]
    assert runs(worker) == [(FAR, received(alice.key, b"there"))]  # that was on its way
    far.leaves()
    alice.sends(FAR, b"there again")
    assert runs(worker) == [(FAR, received(alice.key, b"there again"))]


def test_a_client_that_left_the_other_worker_is_unknown(world, alice, worker):
    alice.sends(FAR, b"1")
    assert len(runs(worker)) == 1
    worker.lost("far")
    alice.sends(FAR, b"2")
    assert runs(worker) == []
    assert world.dropped("unknown_dest") == 1


def test_what_a_broken_link_leaves_behind_is_counted(world, alice, worker):
    alice.sends(FAR, b"left")
    assert len(runs(worker)) == 1
    alice.says(
        *[wire.pack_send_packet(FAR, packet) for packet in (b"lost", b"lost as well", v.SMALLEST_DISCO)]
    )
    worker.breaks()
    assert worker.hears() == []
    assert (world.dropped("gone_disconnected"), world.dropped("gone_disconnected", "disco")) == (2, 1)
    assert world.switch.totals().packets_to_workers == 1
    alice.sends(FAR, b"nobody")
    assert world.dropped("unknown_dest") == 1


@pytest.mark.parametrize("blocked", [False, True])
def test_so_is_what_was_on_its_way_when_its_receiver_came_here(world, alice, worker, blocked):
    alice.sends(FAR, b"left")
    assert len(runs(worker)) == 1
    alice.sends(FAR, b"lost")
    if blocked:
        worker.link.block()
    far = world.connect("far")
    worker.breaks()
    alice.sends(FAR, b"here")
    assert worker.hears() == []
    assert far.gets() == [(alice.key, b"here")]
    assert world.dropped("gone_disconnected") == 1
    assert world.switch.totals().packets_to_workers == 1


def test_the_table_of_ways_is_bounded(world, alice, worker):
    for n in range(MAX_ROUTES + 2):
        worker.has(f"far {n}")
        alice.sends(key(f"far {n}"), b"x")
    assert len(alice.session._routes) == 2
    assert len(runs(worker)) == MAX_ROUTES + 2


def test_a_client_gets_the_frames_of_a_run_as_they_are(world, alice, sibling):
    packets = [b"", b"ab", b"c" * 1200, v.SMALLEST_DISCO]
    sibling.says(
        pack_run(alice.key, received(key("x"), *packets)), pack_run(alice.key, received(key("y"), b"other"))
    )
    assert alice.gets() == [(key("x"), packet) for packet in packets] + [(key("y"), b"other")]
    assert world.switch.totals().packets_from_workers == 5
    assert alice.session.heard == {key("x"), key("y")}


@given(st.data())
def test_runs_pass_in_any_chunking(data):
    world = World()
    alice, sibling = world.connect("alice"), world.connect("sibling", is_mesh=True, sibling=True)
    packets = data.draw(st.lists(st.lists(st.binary(max_size=100), min_size=1, max_size=4), max_size=4))
    stream = b"".join(
        pack_run(alice.key, received(key("x"), *run)) + wire.pack_ping(b"12345678") for run in packets
    )
    while stream:
        at = data.draw(st.integers(1, len(stream)))
        sibling.says(stream[:at])
        stream = stream[at:]
    assert alice.gets() == [(key("x"), packet) for run in packets for packet in run]
    assert world.switch.consistency_check() == []


def test_a_run_for_a_blocked_client_waits_packet_by_packet(world, alice, sibling):
    alice.outbox.block()
    sibling.says(pack_run(alice.key, received(key("x"), b"1", b"22", v.SMALLEST_DISCO)))
    assert alice.outbox.waiting == 3
    alice.outbox.unblock()
    assert sorted(alice.gets()) == sorted((key("x"), packet) for packet in (b"1", b"22", v.SMALLEST_DISCO))


def test_a_run_for_an_unknown_key_is_dropped_and_disco_is_answered(world, sibling):
    sibling.says(pack_run(key("nobody"), received(key("x"), b"1", v.SMALLEST_DISCO)))
    assert (world.dropped("unknown_dest_on_fwd"), world.dropped("unknown_dest_on_fwd", "disco")) == (1, 1)
    assert sibling.hears() == [(wire.PEER_GONE, key("nobody") + bytes([wire.GONE_NOT_HERE]))]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (pack_run(key("alice"), received(key("x"), b"1") + b"\5\0\0\0\x29rest"), "bad_run"),
        (wire.HEADER.pack(wire.FORWARD_RUN, wire.MAX_RUN + 33), "oversized_run"),
    ],
)
def test_a_run_that_no_worker_would_send_ends_the_link(world, alice, sibling, frame, reason):
    with pytest.raises(ProtocolError, match=reason):
        sibling.says(frame)


def test_runs_are_for_workers_only(world, alice):
    for client in (world.connect("carol"), world.connect("relay", is_mesh=True)):
        client.says(pack_run(alice.key, received(key("x"), b"forged")))
    assert alice.gets() == []
    assert world.switch.counts.unknown_frames == 2
