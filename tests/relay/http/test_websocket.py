import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.relay.upgrade import make_key, pack_upgrade
from relay.http.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    UpgradeRefused,
    WebSocket,
    accept_upgrade,
    apply_mask,
    offers_derp,
    pack_close,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
MASK = b"\x37\xfa\x21\x3d"
GOOD = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
    "sec-websocket-protocol": "derp",
}


def headers(**changes):
    merged = GOOD | {name.replace("_", "-"): value for name, value in changes.items()}
    return [(name.encode(), value.encode()) for name, value in merged.items() if value is not None]


def frame(opcode, payload=b"", *, fin=True, mask=MASK, size=None, rsv=0):
    """One frame as a client sends it, or as it must not."""
    size = len(payload) if size is None else size
    bit = 0x80 if mask else 0
    head = bytes(((0x80 if fin else 0) | rsv | opcode,))
    head += (
        bytes((bit | size,))
        if size <= 125
        else bytes((bit | 126,)) + size.to_bytes(2, "big")
        if size < 65536
        else bytes((bit | 127,)) + size.to_bytes(8, "big")
    )
    return head + mask + (apply_mask(payload, mask) if mask else payload)


# The upgrade


def test_the_answer():
    assert accept_upgrade("GET", headers()) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: derp\r\n\r\n"
    )


def test_another_subprotocol_is_upgraded_and_closed():
    given_headers = headers(sec_websocket_protocol="derpy, chat")
    answer = accept_upgrade("GET", given_headers)
    assert b"Protocol:" not in answer and not offers_derp(given_headers)
    _, _, rest = answer.partition(b"\r\n\r\n")
    assert rest == pack_close(1008, "client must speak the derp subprotocol")
    assert offers_derp(headers(sec_websocket_protocol="chat, Derp"))


@pytest.mark.parametrize(
    "method, changes, status",
    [
        ("GET", {"connection": None}, 426),
        ("GET", {"connection": "close"}, 426),
        ("GET", {"upgrade": "derp"}, 426),
        ("POST", {}, 405),
        ("GET", {"sec_websocket_version": "8"}, 400),
        ("GET", {"sec_websocket_version": None}, 400),
        ("GET", {"sec_websocket_key": None}, 400),
        ("GET", {"sec_websocket_key": "AAAA"}, 400),
        ("GET", {"sec_websocket_key": "not base64 at all"}, 400),
        ("GET", {"sec_websocket_key": "é" * 24}, 400),
    ],
)
def test_what_is_no_upgrade(method, changes, status):
    with pytest.raises(UpgradeRefused) as e:
        accept_upgrade(method, headers(**changes))
    assert e.value.status == status and str(e.value)
    names = dict(e.value.headers)
    assert (status == 426) is ("Upgrade" in names)


def test_two_keys_are_none():
    with pytest.raises(UpgradeRefused, match="Sec-WebSocket-Key"):
        accept_upgrade("GET", [*headers(), (b"sec-websocket-key", KEY.encode())])


def test_our_clients_request_is_accepted():
    request = pack_upgrade("relay.example", "/derp", make_key())
    line, *rest = request.decode().split("\r\n")[:-2]
    assert line == "GET /derp HTTP/1.1"
    pairs = [
        (name.lower().encode(), value.encode()) for name, value in (header.split(": ") for header in rest)
    ]
    assert b"101" in accept_upgrade("GET", pairs)


# Frames


def test_the_rfcs_examples():
    text = bytes.fromhex("818537fa213d7f9f4d5158")  # "Hello", masked; as binary here
    assert WebSocket().feed(b"\x82" + text[1:]) == (b"Hello", b"")
    assert WebSocket(client=True).feed(bytes.fromhex("820548656c6c6f")) == (b"Hello", b"")
    assert WebSocket().pack(b"Hello") == bytes.fromhex("820548656c6c6f")
    assert WebSocket().pack(bytes(256)) == bytes.fromhex("827e0100") + bytes(256)
    assert WebSocket(max_message=65536).pack(bytes(65536)) == bytes.fromhex("827f0000000000010000") + bytes(
        65536
    )


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_xor_and_its_own_inverse(data, mask):
    assert apply_mask(data, mask) == bytes(b ^ mask[i % 4] for i, b in enumerate(data))
    assert apply_mask(apply_mask(data, mask), mask) == data


@given(
    st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 40), max_size=60), st.booleans()
)
def test_any_chunking_gives_the_same_stream(messages, cuts, from_client):
    sender, receiver = (
        WebSocket(client=from_client, max_message=64),
        WebSocket(client=not from_client, max_message=64),
    )
    ping = frame(PING, b"p", mask=MASK if from_client else b"")
    wire = b"".join(sender.pack(m) + ping for m in messages)
    arrived, replies, position = b"", b"", 0
    for cut in [*cuts, len(wire) + 1]:
        got, reply = receiver.feed(wire[position : position + cut])
        arrived, replies, position = arrived + got, replies + reply, position + cut
    assert arrived == b"".join(messages) and receiver.closed == 0
    assert sender.feed(replies) == (b"", b"") and sender.closed == 0, "pongs, and nothing else, came back"


def test_long_streams_leave_in_messages_that_browsers_take():
    wire = WebSocket().pack(bytes(70_000))
    receiver = WebSocket(client=True)
    assert receiver.feed(wire) == (bytes(70_000), b"")
    assert wire[:4] == b"\x82\x7e\x80\x00"


def test_fragments_of_one_message_with_a_ping_between():
    s = WebSocket()
    wire = (
        frame(BINARY, b"ab", fin=False)
        + frame(PING, b"x")
        + frame(CONTINUATION, b"", fin=False)
        + frame(CONTINUATION, b"cd")
    )
    assert s.feed(wire) == (b"abcd", frame(PONG, b"x", mask=b""))
    assert s.closed == 0


def test_the_last_of_many_pings_is_answered():
    assert WebSocket().feed(b"".join(frame(PING, bytes((i,))) for i in range(100))) == (
        b"",
        frame(PONG, b"c", mask=b""),
    )


@pytest.mark.parametrize(
    "wire, code",
    [
        (frame(TEXT, b"hi"), 1003),
        (frame(BINARY, b"x" * 32_769), 1009),
        (frame(BINARY, b"x" * 30_000, fin=False) + frame(CONTINUATION, b"x" * 2_769), 1009),
        (frame(BINARY, b"", size=2**63), 1009),
        (frame(BINARY, b"x", mask=b""), 1002),
        (frame(BINARY, b"x", rsv=0x40), 1002),
        (frame(0x3, b"x"), 1002),
        (frame(0xB, b"x"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(BINARY, b"x", fin=False) + frame(BINARY, b"x"), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, b"\x03\xed"), 1002),  # 1005 is never on the wire
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
def test_a_breach_is_answered_with_its_code_and_nothing_after_it_counts(wire, code):
    s = WebSocket()
    arrived, reply = s.feed(frame(BINARY, b"before") + wire + frame(BINARY, b"after"))
    assert arrived.startswith(b"before") and b"after" not in arrived
    assert s.closed == code
    assert reply[:1] == b"\x88" and reply[2:4] == code.to_bytes(2, "big")
    assert s.feed(frame(BINARY, b"later")) == (b"", b"") and s.close() == b""


def test_the_limit_itself_passes():
    assert WebSocket().feed(frame(BINARY, b"x" * 32_768)) == (b"x" * 32_768, b"")


def test_a_servers_masked_frame_is_a_breach_for_clients():
    c = WebSocket(client=True)
    c.feed(frame(BINARY, b"x"))
    assert c.closed == 1002


@pytest.mark.parametrize(
    "payload, code", [(b"", 1005), (b"\x03\xe8", 1000), (b"\x03\xe9bye", 1001), (b"\x0f\xa0", 4000)]
)
def test_a_close_comes_back(payload, code):
    s = WebSocket()
    arrived, reply = s.feed(frame(BINARY, b"last") + frame(PING, b"p") + frame(CLOSE, payload) + b"rubbish")
    assert (arrived, s.closed) == (b"last", code)
    assert reply == frame(PONG, b"p", mask=b"") + frame(CLOSE, payload[:2], mask=b"")


def test_closing_first():
    s, c = WebSocket(), WebSocket(client=True)
    wire = s.close(1001, "r" * 200)
    assert len(wire) == 127 and s.close() == b""
    assert c.feed(wire)[0] == b"" and c.closed == 1001


def test_what_waits_for_its_rest_stays_small():
    s = WebSocket()
    for byte in frame(PING, b"y" * 125)[:-1]:
        assert s.feed(bytes((byte,))) == (b"", b"")
    assert len(s._partial) == 130
    assert s.feed(apply_mask(b"y" * 125, MASK)[-1:]) == (b"", frame(PONG, b"y" * 125, mask=b""))


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_end_in_order_or_in_a_close_code(data, client):
    side = WebSocket(client=client)
    arrived, reply = side.feed(data)
    assert len(arrived) <= len(data) and len(reply) <= 2 * 131 + 8
    assert side.closed in {0, 1002, 1003, 1005, 1007, 1009} or side.closed in range(1000, 5000)
