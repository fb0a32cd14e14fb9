"""What derper does, as its source and its own tests have it (protocol notes, sections 4, 5, 13.5 and 14), on the pure core.

A room of clients without sockets: `blocked` ones take no bytes, as a receiver that stopped reading.
"""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import wire
from relay.bucket import RateConfig
from relay.handshake import decode_client_info
from relay.outbox import Outbox
from relay.switch import Link
from relay.wire import FrameReader, PeerPresent, ProtocolError
from tests.relay import vectors as v
from tests.relay.people import SERVER, Room, key_of

DISCO = v.SMALLEST_DISCO
NOT_DISCO = DISCO[:61]  # one byte short of looking like it


def feed(room, session, data):
    """What arrived, whole frames only; what it set off is taken from the outboxes by `frames`."""
    buffer = bytearray(data + bytes(wire.PACKET_HEAD_LEN))
    return session.feed(buffer, len(data))


def frames(room, session):
    """(type, payload) of everything that leaves for a session now."""
    room.switch.dirty.clear()
    data = b""
    while chunk := session.outbox.take(room.now)[0]:
        data += chunk
    return FrameReader().receive(data)


def drops(room):
    return {f"{reason}/{kind}": cell[0] for (reason, kind), cell in room.switch.drops.items() if cell[0]}


def link(room, name, **more):
    made = Link(name, Outbox(room.switch.dirty, room.switch.drop, None, mesh=True), **more)
    room.switch.add_link(made)
    return made


def send(number, packet):
    return wire.pack_send_packet(key_of(number), packet)


def received(number, packet):
    return (wire.RECV_PACKET, key_of(number) + packet)


# Routing (4.2)


def test_a_packet_reaches_its_addressee_and_nobody_else():
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    feed(room, a, send(2, b"hello") + send(2, b""))
    assert frames(room, b) == [received(1, b"hello"), received(1, b"")]
    assert frames(room, a) == frames(room, c) == []


def test_sending_to_oneself_works():
    room = Room()
    a = room.join(1)
    feed(room, a, send(1, b"me"))
    assert frames(room, a) == [received(1, b"me")]


def test_ten_disco_packets_to_nobody_give_three_answers_and_one_more_a_second_later():
    room = Room()
    a = room.join(1)
    feed(room, a, send(9, DISCO) * 10)
    assert frames(room, a) == [(wire.PEER_GONE, key_of(9) + b"\x01")] * 3
    room.now += 1.05
    feed(room, a, send(9, DISCO) * 2)
    assert len(frames(room, a)) == 1
    feed(room, a, send(9, NOT_DISCO) * 5)
    assert frames(room, a) == [], "whatever is not disco is dropped in silence"
    assert drops(room) == {"unknown_dest/disco": 12, "unknown_dest/other": 5}


@pytest.mark.parametrize("size, fine", [(65_536, True), (65_537, False)])
def test_the_largest_packet(size, fine):
    room = Room()
    a, b = room.join(1), room.join(2)
    if fine:
        feed(room, a, send(2, bytes(size)))
        assert len(frames(room, b)[0][1]) == 32 + size
    else:
        with pytest.raises(ProtocolError):
            feed(room, a, send(2, bytes(size)))


# Queues (4.3, 4.4)


def test_a_stalled_receiver_keeps_the_last_32_of_400():
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    b.outbox.block()
    for number in range(400):
        feed(room, a, send(2, b"%03d" % number))
    feed(room, a, send(3, b"others"))
    assert frames(room, c) == [received(1, b"others")]
    assert drops(room) == {"queue_head/other": 368}
    b.outbox.unblock()
    assert frames(room, b) == [received(1, b"%03d" % number) for number in range(368, 400)]


def test_disco_has_a_lane_of_its_own():
    room = Room()
    a, b = room.join(1), room.join(2)
    b.outbox.block()
    feed(room, a, send(2, DISCO) + send(2, b"data" * 30) * 100 + send(2, DISCO))
    b.outbox.unblock()
    kinds = [payload[32:38] == wire.DISCO_MAGIC for _, payload in frames(room, b)]
    assert kinds.count(True) == 2 and kinds.count(False) == 32


def test_the_dropped_packet_is_charged_to_its_own_source():
    """1.104: head drop is attributed to the source of the packet that is dropped, not of the one that came."""
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    b.outbox.block()
    feed(room, a, send(2, b"early") * 32)
    feed(room, c, send(2, b"late!") * 10)
    assert room.switch.peers[key_of(1)].dropped == 10 and room.switch.peers[key_of(3)].dropped == 0


def test_order_within_a_lane_survives_the_queue():
    room = Room()
    a, b = room.join(1), room.join(2)
    b.outbox.block()
    feed(room, a, send(2, b"1") + send(2, b"22"))
    b.outbox.unblock()
    feed(room, a, send(2, b"333") + send(2, b"4"))
    assert [payload[32:] for _, payload in frames(room, b)] == [b"1", b"22", b"333", b"4"]


def test_a_client_that_ends_takes_its_queue_with_it():
    room = Room()
    a, b = room.join(1), room.join(2)
    b.outbox.block()
    feed(room, a, send(2, b"x") * 5 + send(2, DISCO) * 2)
    room.switch.unregister(b)
    assert drops(room) == {"gone_disconnected/other": 5, "gone_disconnected/disco": 2}
    assert room.switch.consistency_check() == []


# Pings, notes, unknown frames (2, 4.6, 4.7)


def test_a_ping_is_answered_with_its_first_eight_bytes():
    room = Room()
    a = room.join(1)
    feed(room, a, wire.pack_ping(b"12345678" + bytes(900)))
    assert frames(room, a) == [(wire.PONG, b"12345678")]


def test_while_a_pong_waits_pings_are_ignored():
    room = Room()
    a = room.join(1)
    feed(room, a, b"".join(wire.pack_ping(b"%08d" % i) for i in range(100)))
    assert frames(room, a) == [(wire.PONG, b"00000000")]
    feed(room, a, wire.pack_ping(b"afterall"))
    assert frames(room, a) == [(wire.PONG, b"afterall")]
    totals = room.switch.totals()
    assert (totals["got_ping"], totals["sent_pong"]) == (101, 2)


def test_unknown_frames_are_skipped_up_to_the_largest_ordinary_one():
    room = Room()
    a, b = room.join(1), room.join(2)
    feed(room, a, wire.pack_frame(0x7F, bytes(65_568)) + send(2, b"on"))
    assert frames(room, b) == [received(1, b"on")]
    with pytest.raises(ProtocolError):
        feed(room, a, wire.HEADER.pack(0x7F, 65_569))


@pytest.mark.parametrize(
    "kind",
    [
        wire.SERVER_KEY,
        wire.CLIENT_INFO,
        wire.SERVER_INFO,
        wire.RECV_PACKET,
        wire.KEEP_ALIVE,
        wire.PEER_GONE,
        wire.PEER_PRESENT,
        wire.PONG,
        wire.HEALTH,
        wire.RESTARTING,
    ],
)
def test_a_servers_frames_and_a_second_login_are_unknown_and_harmless(kind):
    room = Room()
    a = room.join(1)
    feed(room, a, wire.pack_frame(kind, bytes(50)))
    assert frames(room, a) == [] and room.switch.totals()["unknown_frames"] == 1


def test_homes_are_counted_once_and_moves_after_five_seconds():
    room = Room()
    a = room.join(1)
    yes, no = wire.pack_note_preferred(True), wire.pack_note_preferred(False)
    feed(room, a, yes * 3)
    assert a.home
    room.now += 6
    feed(room, a, no + no + wire.pack_frame(wire.NOTE_PREFERRED, b"\x07"))
    totals = room.switch.totals()
    assert a.home and (totals["home_moves_in"], totals["home_moves_out"]) == (1, 1)


# Peer gone (4.8)


def test_only_who_got_packets_is_told_and_once_in_its_life():
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    feed(room, a, send(2, b"hi"))
    frames(room, b)
    room.switch.unregister(a)
    assert frames(room, b) == [(wire.PEER_GONE, key_of(1) + b"\0")] and frames(room, c) == []
    a = room.join(1)
    feed(room, a, send(2, b"again"))
    room.switch.unregister(a)
    assert frames(room, b) == [received(1, b"again")], "the same connection is not told a second time"


def test_the_sender_is_not_told_when_its_receiver_leaves():
    room = Room()
    a, b = room.join(1), room.join(2)
    feed(room, a, send(2, b"hi"))
    room.switch.unregister(b)
    assert frames(room, a) == []


def test_of_several_connections_the_last_one_counts():
    room = Room()
    a, again, b = room.join(1), room.join(1), room.join(2)
    feed(room, a, send(2, b"hi"))
    frames(room, b)
    room.switch.unregister(a)
    assert frames(room, b) == []
    room.switch.unregister(again)
    assert frames(room, b) == [(wire.PEER_GONE, key_of(1) + b"\0")]


def test_a_new_connection_of_the_receiver_is_told_too():
    room = Room()
    a, b = room.join(1), room.join(2)
    feed(room, a, send(2, b"hi"))
    room.switch.unregister(b)
    b = room.join(2)
    feed(room, a, send(2, b"hi"))
    frames(room, b)
    room.switch.unregister(a)
    assert frames(room, b) == [(wire.PEER_GONE, key_of(1) + b"\0")]


# Duplicates (4.10)


def test_the_connection_that_spoke_last_gets_the_packets():
    """The vector: 1 then 2 with the same key; X sends; 1 pings; X sends."""
    room = Room()
    first, second, x = room.join(1), room.join(1), room.join(2)
    feed(room, x, send(1, b"one"))
    assert frames(room, second) == [received(2, b"one")] and frames(room, first) == []
    feed(room, first, wire.pack_ping(b"12345678"))
    assert frames(room, first) == [(wire.PONG, b"12345678")]
    feed(room, x, send(1, b"two"))
    assert frames(room, first) == [received(2, b"two")] and frames(room, second) == []


@pytest.mark.parametrize("frame", [wire.pack_note_preferred(True), wire.pack_frame(0x7F, b"?"), send(9, b"x")])
def test_any_frame_makes_a_connection_the_active_one(frame):
    room = Room()
    first, second = room.join(1), room.join(1)
    feed(room, first, frame)
    assert first.outbox.current and not second.outbox.current
    assert room.switch.consistency_check() == []


def test_when_the_active_one_leaves_the_one_that_spoke_before_it_follows():
    room = Room()
    first, second, third = (room.join(1) for _ in range(3))
    feed(room, first, wire.pack_note_preferred(True))
    feed(room, third, wire.pack_note_preferred(True))
    room.switch.unregister(third)
    assert first.outbox.current and first.rivals and second.rivals
    room.switch.unregister(first)
    assert second.outbox.current and not second.rivals
    assert room.switch.totals()["total_dup_client_conns"] == 2


# Watchers (4.9)


def watch(room, number, **more):
    watcher = room.join(number, is_mesh=True, **more)
    feed(room, watcher, wire.WATCH_CONNS_FRAME)
    return watcher


def presents(given):
    return [wire.parse_peer_present(payload) for kind, payload in given if kind == wire.PEER_PRESENT]


def test_a_watcher_sees_itself_everybody_each_arrival_and_each_departure():
    room = Room()
    room.join(1, "203.0.113.7", 51820, app="tailcat")
    w = watch(room, 8, address="2001:db8::7", port=443)
    seen = {peer.key: peer for peer in presents(frames(room, w))}
    assert seen[key_of(1)] == PeerPresent(key_of(1), ip_address("203.0.113.7"), 51820, wire.PRESENT_REGULAR, "tailcat")
    assert seen[key_of(8)].flags == wire.PRESENT_MESH_PEER and len(seen) == 2
    late = room.join(2, None, prober=True, not_ideal=True)
    (peer,) = presents(frames(room, w))
    assert (peer.address, peer.flags) == (None, wire.PRESENT_PROBER | wire.PRESENT_NOT_IDEAL)
    room.switch.unregister(late)
    assert frames(room, w) == [(wire.PEER_GONE, key_of(2) + b"\0")]


def test_present_for_every_connection_of_a_key_and_gone_for_the_last():
    room = Room()
    w = watch(room, 8)
    frames(room, w)
    first, second = room.join(1), room.join(1)
    assert len(presents(frames(room, w))) == 2
    room.switch.unregister(first)
    assert frames(room, w) == []
    room.switch.unregister(second)
    assert frames(room, w) == [(wire.PEER_GONE, key_of(1) + b"\0")]


def test_a_second_watch_repeats_everything():
    room = Room()
    w = watch(room, 8)
    frames(room, w)
    feed(room, w, wire.WATCH_CONNS_FRAME)
    assert len(presents(frames(room, w))) == 1


def test_the_relay_does_not_watch_itself():
    room = Room()
    w = watch(room, SERVER[0])
    room.join(1)
    assert frames(room, w) == []


def test_close_peer_ends_every_connection_of_a_key_and_nobody_elses():
    room = Room()
    mesh, first, second, other = room.join(8, is_mesh=True), room.join(1), room.join(1), room.join(2)
    feed(room, mesh, wire.pack_close_peer(key_of(1)) + wire.pack_close_peer(key_of(9)))
    assert set(room.switch.hangups) == {first, second} and other not in room.switch.hangups
    assert frames(room, mesh) == []


@pytest.mark.parametrize("frame", [wire.WATCH_CONNS_FRAME, v.FORWARD_FRAME, v.CLOSE_PEER_FRAME])
def test_mesh_frames_of_anybody_else_close(frame):
    room = Room()
    with pytest.raises(ProtocolError, match="not_a_mesh_peer"):
        feed(room, room.join(1), frame)


# Mesh (5)


def test_a_forwarded_packet_shows_its_first_sender():
    room = Room()
    mesh, b = room.join(8, is_mesh=True), room.join(2)
    feed(room, mesh, wire.pack_forward_packet(key_of(7), key_of(2), b"far"))
    assert frames(room, b) == [received(7, b"far")]
    totals = room.switch.totals()
    assert totals["packets_forwarded_in"] == 1 and totals["packets_received"] == 0 and totals["bytes_received"] == 0


def test_nothing_is_forwarded_twice():
    room = Room()
    mesh, other = room.join(8, is_mesh=True), link(room, "fra2")
    room.switch.announce(other, PeerPresent(key_of(3)))
    feed(room, mesh, wire.pack_forward_packet(key_of(7), key_of(3), DISCO) + wire.pack_forward_packet(key_of(7), key_of(3), b"data"))
    assert other.outbox.take(room.now)[0] == b""
    assert frames(room, mesh) == [(wire.PEER_GONE, key_of(3) + b"\x01")]
    assert drops(room) == {"unknown_dest_on_fwd/disco": 1, "unknown_dest_on_fwd/other": 1}


def test_a_packet_for_another_relays_client_takes_the_oldest_link():
    room = Room()
    a, first, second = room.join(1), link(room, "fra1"), link(room, "fra2")
    for each in (first, second, first):
        room.switch.announce(each, PeerPresent(key_of(3)))
    forwarded = wire.pack_forward_packet(key_of(1), key_of(3), b"x")
    feed(room, a, send(3, b"x"))
    assert (first.outbox.take(0)[0], second.outbox.take(0)[0]) == (forwarded, b"")
    room.switch.withdraw(first, key_of(3))
    feed(room, a, send(3, b"x"))
    assert (first.outbox.take(0)[0], second.outbox.take(0)[0]) == (b"", forwarded)
    totals = room.switch.totals()
    assert (totals["multiforwarder_created"], totals["multiforwarder_deleted"], totals["packets_forwarded_out"]) == (1, 1, 2)


def test_local_wins_over_mesh_from_the_moment_it_connects():
    room = Room()
    a, mesh = room.join(1), link(room, "fra1")
    room.switch.announce(mesh, PeerPresent(key_of(3)))
    feed(room, a, send(3, b"far"))
    c = room.join(3)
    feed(room, a, send(3, b"near"))
    assert frames(room, c) == [received(1, b"near")]
    mesh.outbox.take(0)
    room.switch.unregister(c)
    feed(room, a, send(3, b"far"))
    assert mesh.outbox.take(0)[0] == wire.pack_forward_packet(key_of(1), key_of(3), b"far")


def test_a_broken_link_takes_its_clients_away():
    room = Room()
    a, mesh, incoming = room.join(1), link(room, "fra1"), room.join(8, is_mesh=True)
    room.switch.announce(mesh, PeerPresent(key_of(3)))
    feed(room, incoming, wire.pack_forward_packet(key_of(3), key_of(1), b"hi"))
    frames(room, a)
    room.switch.remove_link(mesh)
    assert frames(room, a) == [(wire.PEER_GONE, key_of(3) + b"\0")]
    feed(room, a, send(3, DISCO))
    assert frames(room, a) == [(wire.PEER_GONE, key_of(3) + b"\x01")]


def test_strangers_cannot_withdraw():
    room = Room()
    a, mesh, stranger = room.join(1), link(room, "fra1"), link(room, "fra2")
    room.switch.announce(mesh, PeerPresent(key_of(3)))
    room.switch.withdraw(stranger, key_of(3))
    feed(room, a, send(3, b"x"))
    assert mesh.outbox.take(0)[0] and room.switch.totals()["packet_forwarder_delete_other_value"] == 1


def test_a_forward_without_a_sender_is_dropped():
    room = Room()
    mesh, b = room.join(8, is_mesh=True), room.join(2)
    feed(room, mesh, wire.pack_forward_packet(bytes(32), key_of(2), b"from nobody"))
    assert frames(room, b) == []


# The rate limit (4.13)


def test_the_rate_limit_vector():
    room = Room()
    a, b = room.join(1), room.join(2)
    a.limiter = RateConfig(100_000, 65_568).limiter(room.now)
    data, passed, start = send(2, bytes(60_000)) * 4, [], room.now
    while data:
        taken = feed(room, a, data)
        passed += [round(room.now - start, 3)] * len(frames(room, b))
        data = data[taken:]
        room.now += a.wait_s
    assert passed == [0, 0.545, 1.145, 1.746]
    assert room.switch.totals()["rate_limit_per_client_waited"] == 3


# Accounting


def test_kinds_are_counted():
    room = Room()
    a = room.join(1)
    room.join(2)
    feed(room, a, send(2, DISCO) * 3 + send(2, NOT_DISCO) * 2 + send(9, DISCO))
    assert a.rx_disco == 4 and a.rx_packets == 6 and a.rx_bytes == 4 * 62 + 2 * 61


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 5), st.integers(0, 6), st.integers(0, 40)),
    st.tuples(st.just("disco"), st.integers(0, 5), st.integers(0, 6), st.integers(1, 5)),
    st.tuples(st.sampled_from(["join", "leave", "block", "unblock", "flush", "ping"]), st.integers(0, 5), st.just(0), st.just(0)),
)


@given(st.lists(ACTIONS, max_size=60))
def test_whatever_happens_every_packet_is_delivered_waiting_or_dropped_once(actions):
    """And between two clients the packets that arrive are in the order in which they were sent."""
    room, here, sent, last = Room(), {}, 0, {}
    for what, who, to, count in actions:
        session = here.get(who)
        if what == "join":
            here[who] = room.join(who % 4)
        elif session is None:
            continue
        elif what == "leave":
            room.switch.unregister(here.pop(who))
        elif what == "block":
            session.outbox.block()
        elif what == "unblock":
            session.outbox.unblock()
        elif what == "ping":
            feed(room, session, wire.pack_ping(b"12345678"))
        elif what == "flush":
            for kind, payload in frames(room, session):
                if kind == wire.RECV_PACKET and not payload[32:].startswith(wire.DISCO_MAGIC):
                    pair = (payload[:32], session.serial)
                    number = int(payload[32:])
                    assert number > last.get(pair, -1)
                    last[pair] = number
        elif what == "disco":
            feed(room, session, send(to, DISCO) * count)
        else:
            feed(room, session, b"".join(send(to, b"%d" % (sent + i)) for i in range(count)))
            sent += count
        assert room.switch.consistency_check() == []


# The login (3.3)


def test_a_mesh_key_with_blanks_inside_is_not_hexadecimal():
    text = "ab" * 15 + "    " + "ab" * 15
    with pytest.raises(ProtocolError, match="bad_client_info"):
        decode_client_info(f'{{"meshKey":"{text}"}}'.encode())
