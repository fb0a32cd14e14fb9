"""The ways of packets, and those that wait or are dropped, as derper has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import wire
from relay.core.bucket import RateConfig
from relay.core.wire import ProtocolError
from tests.relay.clients import DISCO, NOT_DISCO, Room, drops, feed, frames, key_of, received, send

# Routing (4.2)


def test_a_packet_reaches_its_addressee_and_no_other():
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    feed(a, send(2, b"hello") + send(2, b""))
    assert frames(room, b) == [received(1, b"hello"), received(1, b"")]
    assert frames(room, a) == frames(room, c) == []


def test_sending_to_oneself_works():
    room = Room()
    a = room.join(1)
    feed(a, send(1, b"me"))
    assert frames(room, a) == [received(1, b"me")]


def test_ten_disco_packets_to_an_unknown_key_give_three_answers_and_one_more_a_second_later():
    room = Room()
    a = room.join(1)
    feed(a, send(9, DISCO) * 10)
    assert frames(room, a) == [(wire.PEER_GONE, key_of(9) + b"\x01")] * 3
    room.now += 1.05
    feed(a, send(9, DISCO) * 2)
    assert len(frames(room, a)) == 1
    feed(a, send(9, NOT_DISCO) * 5)
    assert frames(room, a) == [], "whatever is not disco is dropped in silence"
    assert drops(room) == {"unknown_dest/disco": 12, "unknown_dest/other": 5}


@pytest.mark.parametrize("size, fine", [(65_536, True), (65_537, False)])
def test_the_largest_packet(size, fine):
    room = Room()
    a, b = room.join(1), room.join(2)
    if fine:
        feed(a, send(2, bytes(size)))
        assert len(frames(room, b)[0][1]) == 32 + size
    else:
        with pytest.raises(ProtocolError):
            feed(a, send(2, bytes(size)))


# Queues (4.3, 4.4)


def test_a_stalled_receiver_keeps_the_last_32_of_400():
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    b.outbox.block()
    for number in range(400):
        feed(a, send(2, b"%03d" % number))
    feed(a, send(3, b"others"))
    assert frames(room, c) == [received(1, b"others")]
    assert drops(room) == {"queue_head/other": 368}
    b.outbox.unblock()
    assert frames(room, b) == [received(1, b"%03d" % number) for number in range(368, 400)]


def test_disco_has_a_lane_of_its_own():
    room = Room()
    a, b = room.join(1), room.join(2)
    b.outbox.block()
    feed(a, send(2, DISCO) + send(2, b"data" * 30) * 100 + send(2, DISCO))
    b.outbox.unblock()
    kinds = [payload[32:38] == wire.DISCO_MAGIC for _, payload in frames(room, b)]
    assert kinds.count(True) == 2 and kinds.count(False) == 32


def test_the_dropped_packet_is_charged_to_its_own_source():
    """1.104: head drop is attributed to the source of the packet that is dropped, not of the one
    that came.
    """
    room = Room()
    a, b, c = (room.join(i) for i in (1, 2, 3))
    b.outbox.block()
    feed(a, send(2, b"early") * 32)
    feed(c, send(2, b"late!") * 10)
    assert room.switch.peers[key_of(1)].dropped == 10 and room.switch.peers[key_of(3)].dropped == 0


def test_order_within_a_lane_survives_the_queue():
    room = Room()
    a, b = room.join(1), room.join(2)
    b.outbox.block()
    feed(a, send(2, b"1") + send(2, b"22"))
    b.outbox.unblock()
    feed(a, send(2, b"333") + send(2, b"4"))
    assert [payload[32:] for _, payload in frames(room, b)] == [b"1", b"22", b"333", b"4"]


def test_a_client_that_ends_takes_its_queue_with_it():
    room = Room()
    a, b = room.join(1), room.join(2)
    b.outbox.block()
    feed(a, send(2, b"x") * 5 + send(2, DISCO) * 2)
    room.switch.unregister(b)
    assert drops(room) == {"gone_disconnected/other": 5, "gone_disconnected/disco": 2}
    assert room.switch.consistency_check() == []


# The rate limit (4.13)


def test_the_rate_limit_vector():
    room = Room()
    a, b = room.join(1), room.join(2)
    a.limiter = RateConfig(100_000, 65_568).limiter(room.now)
    data, passed, start = send(2, bytes(60_000)) * 4, [], room.now
    while data:
        taken = feed(a, data)
        passed += [round(room.now - start, 3)] * len(frames(room, b))
        data = data[taken:]
        room.now += a.wait_s
    assert passed == [0, 0.545, 1.145, 1.746]
    assert room.switch.totals().rate_limit_per_client_waited == 3


# Accounting


def test_kinds_are_counted():
    room = Room()
    a = room.join(1)
    room.join(2)
    feed(a, send(2, DISCO) * 3 + send(2, NOT_DISCO) * 2 + send(9, DISCO))
    assert a.rx_disco == 4 and a.rx_packets == 6 and a.rx_bytes == 4 * 62 + 2 * 61


ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 5), st.integers(0, 6), st.integers(0, 40)),
    st.tuples(st.just("disco"), st.integers(0, 5), st.integers(0, 6), st.integers(1, 5)),
    st.tuples(
        st.sampled_from(["join", "leave", "block", "unblock", "flush", "ping"]),
        st.integers(0, 5),
        st.just(0),
        st.just(0),
    ),
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
            feed(session, wire.pack_ping(b"12345678"))
        elif what == "flush":
            for kind, payload in frames(room, session):
                if kind == wire.RECV_PACKET and not payload[32:].startswith(wire.DISCO_MAGIC):
                    pair = (payload[:32], session.serial)
                    number = int(payload[32:])
                    assert number > last.get(pair, -1)
                    last[pair] = number
        elif what == "disco":
            feed(session, send(to, DISCO) * count)
        else:
            feed(session, b"".join(send(to, b"%d" % (sent + i)) for i in range(count)))
            sent += count
        assert room.switch.consistency_check() == []
