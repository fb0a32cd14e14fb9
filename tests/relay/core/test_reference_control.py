"""Pings, homes, unknown frames and the login, as derper has them.

From its source and its own tests (protocol notes, sections 4, 5, 13.5 and 14), on the pure core: a
room of clients without sockets. `blocked` ones take no bytes, as a receiver that stopped reading.
"""

import pytest

from relay.core import wire
from relay.core.handshake import decode_client_info
from relay.core.wire import ProtocolError
from tests.relay.clients import Room, feed, frames, received, send
from tests.relay.packing import pack_note_preferred

# Pings, notes, unknown frames (2, 4.6, 4.7)


def test_a_ping_is_answered_with_its_first_eight_bytes():
    room = Room()
    a = room.join(1)
    feed(a, wire.pack_ping(b"12345678" + bytes(900)))
    assert frames(room, a) == [(wire.PONG, b"12345678")]


def test_while_a_pong_waits_pings_are_ignored():
    room = Room()
    a = room.join(1)
    feed(a, b"".join(wire.pack_ping(b"%08d" % i) for i in range(100)))
    assert frames(room, a) == [(wire.PONG, b"00000000")]
    feed(a, wire.pack_ping(b"afterall"))
    assert frames(room, a) == [(wire.PONG, b"afterall")]
    totals = room.switch.totals()
    assert (totals.got_ping, totals.sent_pong) == (101, 2)


def test_unknown_frames_are_skipped_up_to_the_largest_ordinary_one():
    room = Room()
    a, b = room.join(1), room.join(2)
    feed(a, wire.pack_frame(0x7F, bytes(65_568)) + send(2, b"on"))
    assert frames(room, b) == [received(1, b"on")]
    with pytest.raises(ProtocolError):
        feed(a, wire.HEADER.pack(0x7F, 65_569))


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
    feed(a, wire.pack_frame(kind, bytes(50)))
    assert frames(room, a) == [] and room.switch.totals().unknown_frames == 1


def test_homes_are_counted_once_and_moves_after_five_seconds():
    room = Room()
    a = room.join(1)
    yes, no = pack_note_preferred(True), pack_note_preferred(False)
    feed(a, yes * 3)
    assert a.home
    room.now += 6
    feed(a, no + no + wire.pack_frame(wire.NOTE_PREFERRED, b"\x07"))
    totals = room.switch.totals()
    assert a.home and (totals.home_moves_in, totals.home_moves_out) == (1, 1)


# The login (3.3)


def test_a_mesh_key_with_blanks_inside_is_not_hexadecimal():
    text = "ab" * 15 + "    " + "ab" * 15
    with pytest.raises(ProtocolError, match="bad_client_info"):
        decode_client_info(f'{{"meshKey":"{text}"}}'.encode())
