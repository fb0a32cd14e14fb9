from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import wire
from relay.core.wire import FrameReader, PeerPresent, ProtocolError
from tests.relay import vectors as v
from tests.relay.packing import pack_forward_packet, pack_health, pack_note_preferred, pack_recv_packet


def test_frames_are_those_of_the_go_implementation():
    assert wire.pack_server_key(v.SERVER) == v.SERVER_KEY_FRAME
    assert wire.pack_send_packet(v.D, v.HELLO) == v.SEND_FRAME
    assert pack_recv_packet(v.C, v.HELLO) == v.RECV_FRAME
    assert pack_forward_packet(v.C, v.D, v.HELLO) == v.FORWARD_FRAME
    assert wire.KEEP_ALIVE_FRAME.hex() == "0600000000"
    assert wire.WATCH_CONNS_FRAME.hex() == "1000000000"
    assert pack_note_preferred(True) == bytes.fromhex("070000000101")
    assert pack_note_preferred(False) == bytes.fromhex("070000000100")
    assert wire.pack_peer_gone(v.C, wire.GONE_DISCONNECTED) == v.GONE_DISCONNECTED_FRAME
    assert wire.pack_peer_gone(v.C, wire.GONE_NOT_HERE) == v.GONE_NOT_HERE_FRAME
    assert wire.pack_close_peer(v.C) == v.CLOSE_PEER_FRAME
    assert wire.pack_ping(bytes(range(1, 9))) == bytes.fromhex("12000000080102030405060708")
    assert wire.pack_pong(bytes(range(1, 9))) == bytes.fromhex("13000000080102030405060708")
    assert pack_health("dup") == bytes.fromhex("1400000003647570")
    assert pack_health("") == bytes.fromhex("1400000000")
    assert wire.pack_restarting(500, 5000) == bytes.fromhex("1500000008000001f400001388")


def test_peer_present_grew_by_the_app_name_in_1_104():
    peer = PeerPresent(v.C, ip_address("203.0.113.7"), 51820, wire.PRESENT_REGULAR, "tsnet")
    frame = wire.pack_peer_present(peer)
    assert frame == bytes.fromhex("0900000039") + v.PRESENT_C_OF_1_103[5:] + b"\x05tsnet"
    assert wire.parse_peer_present(frame[5:]) == peer


@pytest.mark.parametrize(
    ("payload", "peer"),
    [
        (v.C, PeerPresent(v.C)),
        (v.PRESENT_C_OF_1_103[5:-1], PeerPresent(v.C, ip_address("203.0.113.7"), 51820, 0)),
        (v.PRESENT_C_OF_1_103[5:], PeerPresent(v.C, ip_address("203.0.113.7"), 51820, 1)),
        (v.PRESENT_D_OF_1_103[5:], PeerPresent(v.D, ip_address("2001:db8::7"), 443, 2)),
        (
            v.PRESENT_D_OF_1_103[5:] + b"\x02ab and the future",
            PeerPresent(v.D, ip_address("2001:db8::7"), 443, 2, "ab"),
        ),
        (v.C + bytes(16 + 2 + 1), PeerPresent(v.C, None, 0, 0)),
    ],
)
def test_peer_present_is_read_at_every_length(payload, peer):
    assert wire.parse_peer_present(payload) == peer


def test_an_unknown_address_is_sixteen_zeros():
    assert wire.pack_peer_present(PeerPresent(v.C))[5:] == v.C + bytes(20)


@pytest.mark.parametrize(
    ("parse", "payload", "reason"),
    [
        (wire.parse_peer_present, v.C[:31], "short_peer_present"),
        (wire.parse_peer_gone, v.C[:31], "short_peer_gone"),
        (wire.parse_restarting, bytes(7), "short_restarting"),
        (wire.parse_server_key, v.SERVER_KEY_FRAME[5:-1], "bad_server_key"),
        (wire.parse_server_key, b"X" + v.SERVER_KEY_FRAME[6:], "bad_server_key"),
        (wire.parse_server_key, v.SERVER_KEY_FRAME[5:] + bytes(1000), "bad_server_key"),
    ],
)
def test_short_payloads_are_refused(parse, payload, reason):
    with pytest.raises(ProtocolError, match=reason) as error:
        parse(payload)
    assert error.value.reason == reason


def test_what_follows_the_known_part_is_ignored():
    assert wire.parse_server_key(v.SERVER_KEY_FRAME[5:] + b"future") == v.SERVER
    assert wire.parse_peer_gone(v.C) == (v.C, 0)
    assert wire.parse_peer_gone(v.C + b"\x01future") == (v.C, 1)
    assert wire.parse_restarting(bytes.fromhex("000001f40000138801")) == (500, 5000)


def test_disco_is_recognized_by_magic_and_length():
    assert wire.is_disco(v.SMALLEST_DISCO)
    assert not wire.is_disco(v.SMALLEST_DISCO[:-1])
    assert not wire.is_disco(bytes(62))


@pytest.mark.parametrize(
    ("name", "valid"),
    [("", True), ("tsnet v1~", True), ("x" * 32, True), ("x" * 33, False), ("a\n", False), ("é", False)],
)
def test_app_names_are_short_printable_ascii(name, valid):
    assert wire.is_app_name(name) is valid


frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)


@given(frames, st.lists(st.integers(1, 400), max_size=30))
def test_frames_do_not_depend_on_how_the_stream_is_cut(frames, cuts):
    stream = b"".join(wire.pack_frame(kind, payload) for kind, payload in frames)
    reader, read = FrameReader(), []
    for cut in [*cuts, len(stream)]:
        read += reader.receive(stream[:cut])
        stream = stream[cut:]
    assert read == frames


def test_a_frame_whose_payload_is_on_its_way_waits_for_it():
    frame = wire.pack_frame(wire.PING, b"12345678")
    reader = FrameReader()
    assert reader.receive(frame[:-1]) == []
    assert reader.receive(frame[-1:] + frame) == [(wire.PING, b"12345678")] * 2


def test_a_frame_above_the_limit_is_refused_at_its_header():
    assert FrameReader(limit=5).receive(b"\x01\0\0\0\x05hello") == [(1, b"hello")]
    with pytest.raises(ProtocolError, match="frame_too_long"):
        FrameReader(limit=5).receive(b"\x01\0\0\0\x06")
