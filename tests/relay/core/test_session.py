"""The effects of a client's bytes, in any chunking and in any company."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core import wire
from relay.core.bucket import RateConfig
from relay.core.forward import MAX_ROUTES
from relay.core.handshake import ClientInfo
from relay.core.session import MAX_COLD
from relay.core.wire import ProtocolError
from tests.relay import vectors as v
from tests.relay.packing import pack_note_preferred
from tests.relay.world import Client, World, key

PING = wire.pack_ping(b"12345678")


def test_a_packet_reaches_exactly_its_addressee(world, alice, bob):
    carol = world.connect("carol")
    alice.sends(bob, b"hello")
    assert bob.hears() == [(wire.RECV_PACKET, alice.key + b"hello")]
    assert carol.hears() == alice.hears() == []


def test_the_bytes_are_those_of_the_reference(world):
    c, d = Client(world, v.C), Client(world, v.D)
    world.switch.register(c.session)
    world.switch.register(d.session)
    c.says(v.SEND_FRAME)
    world.tick()
    assert d.socket.written == [v.RECV_FRAME]


def test_empty_packets_and_packets_to_oneself_pass(world, alice, bob):
    alice.sends(bob, b"")
    alice.sends(alice, b"me")
    assert bob.gets() == [(alice.key, b"")]
    assert alice.gets() == [(alice.key, b"me")]


def test_one_read_becomes_one_write_per_destination(world, alice, bob):
    carol = world.connect("carol")
    frames = [wire.pack_send_packet(to.key, bytes([n]) * 100) for n in range(5) for to in (bob, carol)]
    alice.says(*frames)
    carol.says(*[wire.pack_send_packet(bob.key, b"%d" % n) for n in range(3)])
    world.tick()
    assert [len(c.socket.written) for c in (bob, carol)] == [1, 1]
    assert bob.gets() == [(alice.key, bytes([n]) * 100) for n in range(5)] + [
        (carol.key, b"%d" % n) for n in range(3)
    ]


def test_what_is_counted(world, alice, bob):
    alice.says(
        *[
            wire.pack_send_packet(bob.key, packet)
            for packet in (b"abc", v.SMALLEST_DISCO, v.SMALLEST_DISCO, b"T" * 62)
        ]
    )
    alice.sends(key("nobody"), b"12")
    bob.hears()
    assert (alice.session.rx_packets, alice.session.rx_bytes, alice.session.rx_disco) == (
        5,
        3 + 3 * 62 + 2,
        2,
    )
    assert (bob.outbox.packets, bob.outbox.payload_octets) == (4, 3 + 3 * 62)
    totals = world.switch.totals()
    assert (totals.packets_received, totals.packets_sent, totals.bytes_sent) == (5, 4, 189)
    alice.leaves()
    assert world.switch.totals().packets_received == 5


def test_unknown_frames_are_skipped_up_to_a_size(world, alice, bob):
    alice.says(
        wire.pack_frame(0x77, bytes(wire.MAX_UNKNOWN)),
        wire.pack_pong(b"12345678"),
        wire.pack_frame(wire.CLIENT_INFO, b"again"),
    )
    alice.sends(bob, b"still here")
    assert bob.gets() == [(alice.key, b"still here")]
    assert world.switch.counts.unknown_frames == 3


BROKEN_RULES = {
    False: [
        (wire.SEND_PACKET, 31, "short_packet"),
        (wire.SEND_PACKET, wire.MAX_PACKET + 33, "oversized_packet"),
        (wire.FORWARD_PACKET, 64, "not_a_mesh_peer"),
        (wire.WATCH_CONNS, 0, "not_a_mesh_peer"),
        (wire.CLOSE_PEER, 32, "not_a_mesh_peer"),
        (wire.NOTE_PREFERRED, 2, "bad_note_preferred_length"),
        (wire.PING, 7, "bad_ping_length"),
        (wire.PING, 1001, "bad_ping_length"),
        (0x77, wire.MAX_UNKNOWN + 1, "unknown_frame_too_long"),
    ],
    True: [
        (wire.FORWARD_PACKET, 63, "short_packet"),
        (wire.FORWARD_PACKET, wire.MAX_PACKET + 65, "oversized_packet"),
        (wire.WATCH_CONNS, 1, "bad_watch_conns_length"),
        (wire.CLOSE_PEER, 33, "bad_close_peer_length"),
    ],
}
"""Whether a mesh peer sends it -> (kind, length, reason)."""


@pytest.mark.parametrize(
    ("is_mesh", "rule"), [(is_mesh, rule) for is_mesh, rules in BROKEN_RULES.items() for rule in rules]
)
def test_a_broken_rule_ends_it_at_the_header(world, bob, is_mesh, rule):
    """The packets before it have been relayed."""
    kind, length, reason = rule
    sender = world.connect("sender", is_mesh=is_mesh)
    with pytest.raises(ProtocolError) as error:
        sender.says(wire.pack_send_packet(bob.key, b"before"), wire.HEADER.pack(kind, length))
    assert error.value.reason == reason
    assert bob.gets() == [(sender.key, b"before")]


@pytest.mark.parametrize("before", [[], [b"before"], [b"before", b"and longer"]])
def test_a_known_destination_gets_no_oversized_packet_either(world, alice, bob, before):
    """Alone in its read, the first of several, or at the end of a run; the largest that may pass
    does.
    """
    largest = bytes(wire.MAX_PACKET)
    alice.sends(bob, largest)
    alice.sends(bob, largest)
    frames = [wire.pack_send_packet(bob.key, packet) for packet in [*before, largest]]
    oversized = wire.pack_frame(wire.SEND_PACKET, bob.key + largest + b"!")
    alice.says(*frames)
    with pytest.raises(ProtocolError, match="oversized_packet"):
        alice.says(*(frames if before else []), oversized)
    assert bob.gets() == [
        (alice.key, packet) for packet in [largest] * 2 + ([*before, largest] * 2 if before else [largest])
    ]
    with pytest.raises(ProtocolError, match="oversized_packet"):
        alice.says(oversized, *frames)
    assert bob.gets() == []


def test_pings_are_answered_one_at_a_time(world, alice):
    alice.says(wire.pack_ping(b"first 8b" + b"and more"), PING)
    assert alice.hears() == [(wire.PONG, b"first 8b")]
    alice.says(PING)
    assert alice.hears() == [(wire.PONG, b"12345678")]
    assert (world.switch.counts.got_ping, world.switch.counts.sent_pong) == (3, 2)


def test_a_flood_of_pings_waits_for_its_turn(world, alice, bob):
    alice.says(*[PING] * (MAX_COLD + 10), wire.pack_send_packet(bob.key, b"behind"))
    assert alice.session.wait_s > 0
    assert bob.gets() == []
    alice.says()
    assert alice.session.wait_s == 0
    assert bob.gets() == [(alice.key, b"behind")]


def test_so_does_a_flood_to_an_unknown_key(world, alice):
    alice.says(*[wire.pack_send_packet(key("nobody"), b"x")] * (MAX_COLD + 1))
    assert alice.session.wait_s > 0
    alice.says()
    assert world.dropped("unknown_dest") == MAX_COLD + 1


def test_home_is_noted_and_moves_are_counted_after_a_while(world, alice):
    alice.says(pack_note_preferred(True), pack_note_preferred(True))
    assert alice.session.home
    world.now += 6
    alice.says(pack_note_preferred(False), pack_note_preferred(False))
    alice.says(wire.pack_frame(wire.NOTE_PREFERRED, b"\7"))
    assert (world.switch.counts.home_moves_in, world.switch.counts.home_moves_out) == (1, 1)


def test_disco_to_an_unknown_key_is_answered_but_not_often(world, alice):
    """Six at once give three answers, then one per second; packets that are not disco give none."""
    nobody = key("nobody")
    for _ in range(6):
        alice.sends(nobody, v.SMALLEST_DISCO)
    alice.sends(nobody, b"data")
    gone = (wire.PEER_GONE, nobody + bytes([wire.GONE_NOT_HERE]))
    assert alice.hears() == [gone] * 3
    world.now += 1.05
    alice.sends(nobody, v.SMALLEST_DISCO)
    alice.sends(nobody, v.SMALLEST_DISCO)
    assert alice.hears() == [gone]
    assert (world.dropped("unknown_dest", "disco"), world.dropped("unknown_dest")) == (8, 1)
    assert world.switch.counts.peer_gone_not_here_frames == 4


def test_the_table_of_destinations_is_bounded(world, alice):
    others = [world.connect(str(n)) for n in range(MAX_ROUTES + 20)]
    for other in others:
        alice.sends(other, b"x")
    world.tick()
    assert all(len(other.socket.frames()) == 1 for other in others)
    assert len(alice.session._routes) == 20
    alice.session.trim()
    assert not alice.session._routes


def test_a_known_destination_follows_its_key_to_a_new_connection(world, alice, bob):
    alice.sends(bob, b"1")
    again = world.connect("bob")
    alice.sends(bob, b"2")
    bob.says(PING)  # the older connection speaks: packets go there again
    alice.sends(bob, b"3")
    assert bob.gets() == [(alice.key, b"1"), (alice.key, b"3")]
    bob.leaves()
    alice.sends(bob, b"4")
    assert again.gets() == [(alice.key, b"2"), (alice.key, b"4")]
    alice.sends(bob, b"5")
    again.leaves()
    alice.sends(bob, b"6")
    assert (world.dropped("gone_disconnected"), world.dropped("unknown_dest")) == (1, 1)


def test_presence_flags_combine_and_regular_is_alone(world):
    def flags(**options):
        return Client(world, key("x"), **options).session.present().flags

    assert flags() == wire.PRESENT_REGULAR
    assert flags(is_mesh=True, not_ideal=True, info=ClientInfo(is_prober=True)) == 14
    assert Client(world, key("x"), info=ClientInfo(app_name="tsnet")).session.present().app_name == "tsnet"


# Rate limits.


def limited(world, **limits) -> Client:
    client = world.connect("alice")
    client.session.limiter = RateConfig(**limits).limiter(world.now)
    return client


def test_a_rate_limit_lets_frames_wait(world, bob):
    """At 100,000 B/s, burst 65,568, frames of 60,032 pass after 0, 0.545, 1.145 and 1.746 s."""
    alice = limited(world, bytes_per_s=100_000, burst_bytes=65_568)
    frame = wire.pack_send_packet(bob.key, bytes(60_000))
    began, at = world.now, []
    alice.says(frame * 3)
    for _ in range(3):
        at += [round(world.now - began, 3)] * len(bob.gets())
        world.now += alice.session.wait_s
        alice.says(frame if len(at) == 2 else b"")
    at += [round(world.now - began, 3)] * len(bob.gets())
    assert at == [0.0, 0.545, 1.145, 1.746]


def test_a_rate_limit_counts_a_frame_once_however_it_comes(world, bob):
    alice = limited(world, packets_per_s=1, burst_packets=2)
    frame = wire.pack_send_packet(bob.key, b"abc")
    for byte in frame * 2:
        alice.says(bytes([byte]))
        assert alice.session.wait_s == 0
    alice.says(frame)
    assert alice.session.wait_s == 1
    assert len(bob.gets()) == 2


def test_of_two_waits_the_longer_counts(world):
    alice = limited(world, packets_per_s=1, burst_packets=MAX_COLD + 1)
    alice.says(PING * (MAX_COLD + 2))  # one too many for this turn, and one too many for the limit
    assert alice.session.wait_s == 1


def test_a_rate_limit_counts_a_frame_once_also_when_a_turn_ends_before_it(world, bob):
    alice = limited(world, packets_per_s=1, burst_packets=2 * MAX_COLD)
    alice.says(PING * (2 * MAX_COLD - 1) + wire.pack_send_packet(bob.key, b"behind"))
    alice.says()
    assert bob.gets() == [(alice.key, b"behind")]
    assert alice.session.wait_s == 0


def test_a_rate_limit_does_not_hide_a_broken_rule(world):
    with pytest.raises(ProtocolError, match="oversized_packet"):
        limited(world, bytes_per_s=1000, burst_bytes=65_568).says(
            wire.HEADER.pack(wire.SEND_PACKET, 2**32 - 1)
        )


def test_runs_to_one_peer_leave_in_one_piece_whatever_their_sizes(world, alice, bob):
    packets = [b"", b"ab", b"cd", v.SMALLEST_DISCO, b"x" * 62, b"y", *[b"z" * 40] * 12]
    alice.sends(bob, b"first")
    alice.says(*[wire.pack_send_packet(bob.key, packet) for packet in packets])
    assert len(bob.outbox.pending) == 2
    assert bob.gets() == [(alice.key, packet) for packet in [b"first", *packets]]
    assert (alice.session.rx_packets, alice.session.rx_disco, bob.outbox.packets) == (19, 1, 19)


def test_a_blocked_peer_keeps_what_it_can_of_runs_of_several_sizes(world, alice, bob):
    alice.sends(bob, b"first")
    assert bob.gets() == [(alice.key, b"first")]
    bob.outbox.block()
    packets = [b"a" * 10, b"b" * 10, v.SMALLEST_DISCO, b"c" * 20, b""]
    alice.says(*[wire.pack_send_packet(bob.key, packet) for packet in packets])
    assert bob.outbox.waiting == 5
    bob.outbox.unblock()
    assert sorted(bob.gets()) == sorted((alice.key, packet) for packet in packets)


def test_a_single_packet_is_counted_like_any_other(world, alice, bob):
    for packet in (b"plain", v.SMALLEST_DISCO, b"T" * 62):
        alice.sends(bob, packet)
        alice.sends(bob, packet)
        assert bob.gets() == [(alice.key, packet)] * 2
    assert (alice.session.rx_packets, alice.session.rx_bytes, alice.session.rx_disco) == (
        6,
        4 * 62 + 2 * 5,
        2,
    )


def test_a_frame_that_is_no_packet_may_come_in_pieces(world, alice):
    for at in range(1, len(PING)):
        alice.says(PING[:at])
        assert alice.hears() == []
        alice.says(PING[at:])
        assert alice.hears() == [(wire.PONG, b"12345678")]


# Properties.

packets = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([b"", b"a", b"b" * 7, b"b" * 7, v.SMALLEST_DISCO])),
    max_size=30,
)


@given(packets, st.lists(st.integers(1, 200), max_size=40), st.booleans())
def test_what_arrives_does_not_depend_on_how_the_stream_was_cut(packets, cuts, ends_oversized):
    world = World()
    alice, receivers = world.connect("alice"), [world.connect(name) for name in ("bob", "carol", "dave")]
    targets = [*receivers, key("nobody")]
    stream = b"".join(
        wire.pack_send_packet(getattr(t := targets[to], "key", t), packet) for to, packet in packets
    )
    if ends_oversized:
        stream += wire.pack_frame(wire.SEND_PACKET, receivers[0].key + bytes(wire.MAX_PACKET + 1))
    with pytest.raises(ProtocolError, match="oversized_packet") if ends_oversized else nullcontext():
        for cut in [*cuts, len(stream)]:
            alice.says(stream[:cut])
            stream = stream[cut:]
    for n, receiver in enumerate(receivers):
        assert receiver.gets() == [(alice.key, packet) for to, packet in packets if to == n]
    assert world.switch.consistency_check() == []


@settings(max_examples=300)
@given(
    st.lists(
        st.binary(max_size=60) | st.integers(0, 255).map(lambda kind: wire.pack_frame(kind, bytes(40))),
        max_size=10,
    ),
    st.booleans(),
)
def test_garbage_gives_a_reason_and_nothing_else(chunks, is_mesh):
    world = World()
    mallory = world.connect("mallory", is_mesh=is_mesh)
    try:
        for chunk in chunks:
            mallory.says(chunk)
    except ProtocolError as error:
        assert error.reason.isidentifier()
    mallory.leaves()
    assert world.switch.consistency_check() == []
