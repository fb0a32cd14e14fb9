"""The effects of a mesh peer's bytes, and of packets for clients of other relays."""

from __future__ import annotations

import pytest

from relay.core import wire
from relay.core.forward import MAX_ROUTES
from relay.core.reasons import Close
from tests.relay import vectors as v
from tests.relay.packing import pack_forward_packet
from tests.relay.world import SERVER, Client, key

# Mesh peers.


@pytest.fixture
def relay(world):
    return world.connect("relay", is_mesh=True)


def test_a_forwarded_packet_shows_its_first_sender(world, relay, bob):
    far = key("far")
    relay.says(*[pack_forward_packet(far, bob.key, bytes([n]) * 50) for n in range(3)])
    relay.says(pack_forward_packet(far, bob.key, b"other size"))
    relay.says(
        pack_forward_packet(far, bob.key, b"other again"),
        pack_forward_packet(far, bob.key, b"other size"),
    )
    assert bob.gets() == [(far, bytes([n]) * 50) for n in range(3)] + [
        (far, b"other size"),
        (far, b"other again"),
        (far, b"other size"),
    ]
    assert relay.session.rx_forwarded == 6


def test_a_forwarded_packet_waits_in_the_receivers_queue(world, relay, bob):
    bob.outbox.block()
    relay.says(pack_forward_packet(key("far"), bob.key, b"later"))
    bob.outbox.unblock()
    assert bob.gets() == [(key("far"), b"later")]


def test_a_forwarded_packet_for_an_unknown_key_goes_back_as_not_here(world, relay):
    relay.says(pack_forward_packet(key("far"), key("nobody"), v.SMALLEST_DISCO))
    relay.says(pack_forward_packet(key("far"), key("nobody"), b"data"))
    assert relay.hears() == [(wire.PEER_GONE, key("nobody") + b"\x01")]
    assert (world.dropped("unknown_dest_on_fwd", "disco"), world.dropped("unknown_dest_on_fwd")) == (1, 1)


def test_a_forwarded_packet_that_names_no_sender_is_dropped(world, relay, bob):
    relay.says(pack_forward_packet(bytes(32), bob.key, b"who?"))
    assert bob.gets() == []
    assert world.dropped("unknown_dest_on_fwd") == 1


def test_the_table_of_forwards_is_bounded(world, relay, bob):
    for n in range(MAX_ROUTES + 1):
        relay.says(pack_forward_packet(key(str(n)), bob.key, b"x"))
    assert len(relay.session.forward_routes) == 1
    assert len(bob.gets()) == MAX_ROUTES + 1


def test_a_forward_waits_for_its_last_byte(world, relay, bob):
    frame = pack_forward_packet(key("far"), bob.key, b"split")
    relay.says(frame[:-1])
    assert bob.gets() == []
    relay.says(frame[-1:])
    assert bob.gets() == [(key("far"), b"split")]


def test_packets_for_another_relays_client_are_forwarded(world, alice):
    link = world.link("other")
    link.has("far")
    alice.sends(key("far"), b"over there")
    assert link.hears() == [(wire.FORWARD_PACKET, alice.key + key("far") + b"over there")]
    link.link.outbox.block()
    alice.sends(key("far"), b"later")
    assert link.hears() == []
    link.link.outbox.unblock()
    assert link.hears() == [(wire.FORWARD_PACKET, alice.key + key("far") + b"later")]
    assert world.switch.totals().packets_forwarded_out == 2


def test_runs_of_packets_are_forwarded_and_counted(world, alice, bob):
    link, far = world.link("other"), key("far")
    link.has("far")
    packets = [bytes([n]) * 62 for n in range(3)] + [v.SMALLEST_DISCO, b"short"]
    alice.says(
        *[wire.pack_send_packet(far, packet) for packet in packets], wire.pack_send_packet(bob.key, b"near")
    )
    assert link.hears() == [(wire.FORWARD_PACKET, alice.key + far + packet) for packet in packets]
    assert bob.gets() == [(alice.key, b"near")]
    assert (alice.session.rx_packets, alice.session.rx_bytes, alice.session.rx_disco) == (
        6,
        4 * 62 + 5 + 4,
        1,
    )


def test_runs_for_two_clients_of_another_relay_are_kept_apart(world, alice):
    link = world.link("other")
    link.has("far")
    link.has("farther")
    alice.says(
        *[
            wire.pack_send_packet(key(name), b"ten bytes.")
            for name in ("far", "farther", "far", "far", "farther")
        ]
    )
    destinations = [payload[32:64] for _, payload in link.hears()]
    assert destinations == [key("far"), key("farther"), key("far"), key("far"), key("farther")]


def test_a_packet_from_outside_may_go_on_to_another_worker_but_no_further(world, relay):
    worker = world.link("worker 2", sibling=True)
    worker.has("far")
    relay.says(pack_forward_packet(key("x"), key("far"), b"one more hop"))
    assert worker.hears() == [(wire.FORWARD_PACKET, key("x") + key("far") + b"one more hop")]
    sibling = world.connect("sibling", is_mesh=True, sibling=True)
    sibling.says(pack_forward_packet(key("x"), key("far"), b"not from a worker"))
    relay.says(pack_forward_packet(bytes(32), key("far"), b"nor from nobody"))
    assert worker.hears() == []
    assert world.dropped("unknown_dest_on_fwd") == 2


def test_close_peer_hangs_up_on_every_connection(world, relay, bob):
    again = world.connect("bob")
    relay.says(
        wire.pack_close_peer(bob.key), wire.pack_close_peer(bob.key), wire.pack_close_peer(key("nobody"))
    )
    assert world.switch.hangups == dict.fromkeys((bob.session, again.session), Close.CLOSED_BY_MESH_PEER)


def test_a_hangup_has_the_first_reason_that_is_given(world, bob):
    bob.session.hang_up(Close.CLOSED_BY_MESH_PEER)
    bob.session.hang_up(Close.REVOKED_NOT_IN_ALLOW_FILE)
    assert world.switch.hangups == {bob.session: Close.CLOSED_BY_MESH_PEER}


def test_a_watcher_that_is_the_relay_itself_hears_nothing(world):
    myself = Client(world, SERVER, is_mesh=True)
    world.switch.register(myself.session)
    myself.says(wire.WATCH_CONNS_FRAME)
    assert myself.hears() == []
