import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import handshake as h
from relay.core.handshake import ClientInfo, ServerInfo
from relay.core.wire import ProtocolError
from tests.relay import vectors as v


def test_public_keys_are_those_of_go():
    assert h.public_key(v.SERVER_PRIVATE) == v.SERVER
    assert h.public_key(v.C_PRIVATE) == v.C
    private = bytes.fromhex("40ab1b58e9076c7a4d9d07291f5edf9d1aa017eb949624ba683317f48a640369")
    assert (
        h.format_key(h.public_key(private))
        == "nodekey:50d20b455ecf12bc453f83c2cfdb2a24925d06cf2598dcaa54e91af82ce9f765"
    )


def test_new_private_keys_are_clamped_and_differ():
    keys = {h.make_private_key() for _ in range(20)}
    assert len(keys) == 20
    assert all(key[0] & 7 == 0 and key[31] & 0xC0 == 0x40 for key in keys)


def test_client_info_frames_are_those_of_go():
    regular = ClientInfo(can_ack_pings=True)
    mesh = ClientInfo(mesh_key=v.MESH_KEY)
    assert h.pack_client_info(v.C_PRIVATE, v.SERVER, regular, v.CLIENT_NONCE) == v.CLIENT_INFO_FRAME
    assert h.pack_client_info(v.D_PRIVATE, v.SERVER, mesh, v.CLIENT_NONCE) == v.MESH_CLIENT_INFO_FRAME
    opened = h.parse_client_info(v.CLIENT_INFO_FRAME[5:], v.SERVER_PRIVATE)
    assert (opened.key, opened.info) == (v.C, regular)
    assert h.parse_client_info(v.MESH_CLIENT_INFO_FRAME[5:], v.SERVER_PRIVATE).info == mesh


def test_server_info_frames_are_those_of_go():
    shared = h.agree(v.C, v.SERVER_PRIVATE)
    limited = ServerInfo(rate_bytes_per_s=125_000, burst_bytes=250_000)
    assert h.pack_server_info(shared, ServerInfo(), v.SERVER_NONCE) == v.SERVER_INFO_FRAME
    assert h.pack_server_info(shared, limited, v.SERVER_NONCE) == v.SERVER_INFO_WITH_RATE_FRAME
    assert h.parse_server_info(v.SERVER_INFO_FRAME[5:], v.C_PRIVATE, v.SERVER) == ServerInfo()
    assert h.parse_server_info(v.SERVER_INFO_WITH_RATE_FRAME[5:], v.C_PRIVATE, v.SERVER) == limited


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"null",
        b'{"Version":2}',
        b'{"x":[1,{}],"version":99} \n',
        b'{"version":null,"CanAckPings":null}',
        b'{"version":-5}',
        b'{"x":"\xff"}',
        b'{"x":%s}' % (b"9" * 100_000),
    ],
)
def test_what_go_accepts_as_client_info(text):
    h.decode_client_info(text)


def test_names_in_any_letter_case_and_mesh_keys_in_upper_case():
    text = json.dumps(
        {"MESHKEY": v.MESH_KEY.hex().upper(), "canackpings": True, "ISPROBER": True, "appname": "tsnet"}
    )
    assert h.decode_client_info(text.encode()) == ClientInfo(0, v.MESH_KEY, True, True, "tsnet")


def test_a_zero_mesh_key_is_no_mesh_key():
    assert h.decode_client_info(b'{"meshKey":"%s"}' % (b"0" * 64)).mesh_key is None


@pytest.mark.parametrize(
    "text",
    [
        '{"meshKey":""}', '{"meshKey":null}', '{"meshKey":"abcd"}', '{"meshKey":"%s"}' % ("zz" * 32),
        '{"meshKey":5}', '{"version":"2"}', '{"version":2.0}', '{"version":true}',
        '{"version":9223372036854775808}', '{"version":%s}' % ("9" * 100_000),
        '{"CanAckPings":1}', '{"IsProber":"yes"}', '{"AppName":7}', "[]", '"x"', '{"version":2', "", "{} x",
        '{"version":NaN}', '{"x":NaN}', '{"version":2} x', "\ufeff{}", '{"x":%s}' % ("[" * 100_000),
    ],
)  # fmt: skip
def test_what_go_refuses_as_client_info(text):
    with pytest.raises(ProtocolError, match="bad_client_info"):
        h.decode_client_info(text.encode())


@pytest.mark.parametrize("name", ["x" * 33, "tab\t", "näme"])
def test_app_names_that_are_not_valid_are_refused(name):
    with pytest.raises(ProtocolError, match="bad_app_name"):
        h.decode_client_info(json.dumps({"AppName": name}).encode())


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (v.CLIENT_INFO_FRAME[5:60], "bad_client_info_length"),
        (bytes(256 * 1024 + 1), "bad_client_info_length"),
        (bytes(200), "bad_key"),
        (b"\1" + bytes(199), "bad_key"),
        (v.CLIENT_INFO_FRAME[5:-1], "bad_box"),
        (v.CLIENT_INFO_FRAME[5:61], "bad_box"),
        (v.D + v.CLIENT_INFO_FRAME[37:], "bad_box"),
    ],
)
def test_client_infos_that_prove_nothing_are_refused(payload, reason):
    with pytest.raises(ProtocolError) as error:
        h.parse_client_info(payload, v.SERVER_PRIVATE)
    assert error.value.reason == reason


def test_server_infos_that_cannot_be_read_are_refused():
    shared = h.agree(v.C, v.SERVER_PRIVATE)
    with pytest.raises(ProtocolError, match="bad_box"):
        h.parse_server_info(bytes(23), v.C_PRIVATE, v.SERVER)
    with pytest.raises(ProtocolError, match="bad_server_info"):
        h.parse_server_info(h.pack_server_info(shared, ServerInfo(version="two"))[5:], v.C_PRIVATE, v.SERVER)


@pytest.mark.parametrize(
    "text", ["0123456789abcdef" * 4, " 0123456789ABCDEF" + "0123456789abcdef" * 3 + "\n"]
)
def test_mesh_keys_are_64_digits(text):
    assert h.parse_mesh_key(text) == v.MESH_KEY


@pytest.mark.parametrize(
    "text, says",
    [
        ("0123456789abcdef" * 4, "does not start with privkey:"),
        ("privkey:" + "0123456789abcdef" * 3, "has 48 hex digits, not 64"),
        ("privkey:" + "0 1 2 3 4 5 6 78" * 4, "is not hexadecimal"),
        ("privkey:" + "ä" * 64, "is not hexadecimal"),
    ],
)
def test_a_bad_key_gets_a_sentence(text, says):
    with pytest.raises(ValueError, match=says):
        h.parse_hex_key(text, "privkey:")


infos = st.builds(
    ClientInfo,
    version=st.integers(0, 2**62),
    mesh_key=st.none() | st.binary(min_size=32, max_size=32).filter(any),
    can_ack_pings=st.booleans(),
    is_prober=st.booleans(),
    app_name=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=32),
)


@given(infos)
def test_client_info_comes_back_as_it_was_packed(info):
    frame = h.pack_client_info(v.C_PRIVATE, v.SERVER, info)
    assert h.parse_client_info(frame[5:], v.SERVER_PRIVATE).info == info


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_garbage_gives_a_reason_and_nothing_else(text):
    try:
        h.decode_client_info(text)
    except ProtocolError as error:
        assert error.reason in {"bad_client_info", "bad_app_name"}


def test_the_first_frame_is_cut_out_of_whatever_has_come():
    payload = v.CLIENT_INFO_FRAME[5:]
    for end in range(len(v.CLIENT_INFO_FRAME)):
        assert h.cut_client_info(v.CLIENT_INFO_FRAME[:end]) is None
    assert h.cut_client_info(v.CLIENT_INFO_FRAME + b"more") == payload


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (v.SEND_FRAME, "no_client_info"),
        (b"\2\0\0\0\x37", "bad_client_info_length"),
        (b"\2\0\4\0\1", "bad_client_info_length"),
    ],
)
def test_another_first_frame_is_refused_at_its_header(stream, reason):
    with pytest.raises(ProtocolError, match=reason):
        h.cut_client_info(stream)
