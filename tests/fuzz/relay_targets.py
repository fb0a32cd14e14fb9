"""The relay's readers of strangers' bytes.

Each takes bytes, may raise the errors that it allows, and checks the properties of all bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from relay import client, flags
from relay.admission import allow_file
from relay.core import bucket, control, forward, handshake, session, stun, wire
from relay.core.addresses import network_of
from relay.core.stats import Rates, Tally, snapshot
from relay.core.wire import ProtocolError
from relay.golang import flag
from relay.http import answers, http11, proxy_header, websocket
from relay.keys import node_key
from relay.observe import clients, pages
from tests.fuzz.target import Target
from tests.relay import vectors as v
from tests.relay.clients import Room, key_of

NOT_ASKED = http11.Response(200, body=b"nobody was asked\n")
MAX_KEPT = 400_000  # more than any frame that a session waits for


def _pieces(data: bytes) -> list[bytes]:
    """Cut the data in a way that depends on it alone.

    From one byte at a time to everything at once.
    """
    size = 1 + (data[-1] % 61 if data else 0)
    return [data[i : i + size] for i in range(0, len(data), size)]


# A session among others: the same frames in any chunking do the same, and nothing is lost count of.


def _feed(pieces: Sequence[bytes], *, mesh: bool) -> tuple[Any, ...]:
    room = Room()
    speaker = room.join(1, is_mesh=mesh)
    others = [room.join(2), room.join(3), room.join(3)]
    kept, reason = b"", ""
    try:
        for piece in pieces:
            kept += piece
            buffer = bytearray(kept + bytes(wire.PACKET_HEAD_LEN))
            kept = kept[speaker.feed(buffer, 0, len(kept)) :]
            assert len(kept) < MAX_KEPT
    except ProtocolError as error:
        reason = error.reason
    heard = [b"".join(other.outbox.take(room.now)[0] for _ in range(70)) for other in (speaker, *others)]
    assert room.switch.consistency_check() == []
    totals = room.switch.totals()
    if speaker in room.switch.sessions:
        room.switch.unregister(speaker)
    assert room.switch.consistency_check() == []
    return heard, reason, totals, {key: tuple(cell) for key, cell in room.switch.drops.items()}


def session_frames(data: bytes) -> None:
    mesh = data[:1] == b"M"
    assert _feed(_pieces(data[1:]), mesh=mesh) == _feed([data[1:]], mesh=mesh)


# HTTP: any bytes, in any chunking, from anyone.


def _site() -> http11.Pages:
    room = Room()
    room.join(1, app="tailcat")
    inside = pages.Inside(room.switch, lambda: snapshot(room.switch, Tally(), {}, []), Rates(), 1.79e9)
    trusted = proxy_header.TrustedProxies(["127.0.0.1"])
    return http11.Pages(
        v.SERVER, lambda: "Sun, 22 Nov 2026 10:00:00 GMT", trusted.client_of, by_path=pages.make_pages(inside)
    )


def _converse(pieces: Sequence[bytes], answer: Any) -> tuple[bytes, bool, Any]:
    conversation = http11.Conversation(_site(), answer, peer="127.0.0.1")
    said = b""
    for number, piece in enumerate(pieces):
        part = conversation.receive(piece)
        while isinstance(part, http11.Later):
            said += part.said
            part.response.close()  # no worker is asked: the bytes behind it are looked at
            part = conversation.resume(NOT_ASKED)
        if isinstance(part, http11.Upgrade):
            return (
                said + part.answer,  # answers to requests of the same read come with it
                False,
                (part.rest + b"".join(pieces[number + 1 :]), part.is_websocket, part.not_ideal),
            )
        said += part
        if conversation.closing:
            break
    return said, conversation.closing, None


def http_requests(data: bytes) -> None:
    if not data:
        return  # the end of a stream, which no cutting makes
    for answer in (answers.answer, answers.answer_plain):
        whole = _converse([data], answer)
        if whole[0].count(b"HTTP/1.1 ") >= http11.MAX_PIPELINED:
            continue  # too many at once, in pieces they are not
        assert _converse(_pieces(data), answer) == whole


def websocket_frames(data: bytes) -> None:
    for client_side in (False, True):
        whole, cut = websocket.WebSocket(client=client_side), websocket.WebSocket(client=client_side)
        expected, _ = whole.feed(data)
        got = b"".join(cut.feed(piece)[0] for piece in _pieces(data))
        assert (got, cut.closed) == (expected, whole.closed)
        assert len(cut._partial) < 140


def proxy_headers(data: bytes) -> None:
    reason, header = "", None
    try:
        header = proxy_header.parse_proxy_header(data)
    except proxy_header.ProxyHeaderError as error:
        reason = error.reason
    for end in range(min(len(data), 300)):
        try:
            early = proxy_header.parse_proxy_header(data[:end])
        except proxy_header.ProxyHeaderError:
            assert reason, "refused early, and not in the end"
            break
        assert early is None or early == header


def forwarded_for(data: bytes) -> None:
    found = proxy_header.TrustedProxies(["127.0.0.1", "10.0.0.0/8"]).client_of(
        "127.0.0.1", data.decode("latin-1").split("\n")
    )
    network_of(found)


def client_info(data: bytes) -> None:
    payload = handshake.cut_client_info(data)
    if payload is not None:
        handshake.parse_client_info(payload, v.SERVER_PRIVATE)


def client_info_json(data: bytes) -> None:
    info = handshake.decode_client_info(data)
    assert info.mesh_key is None or len(info.mesh_key) == wire.KEY_LEN
    assert wire.is_app_name(info.app_name)


def stun_packets(data: bytes) -> None:
    try:
        txid = stun.parse_request(data)
        assert len(txid) == stun.TXID_LEN
        for address in (b"\1\2\3\4", bytes(range(16))):
            answer = stun.pack_response(txid, address, 443)
            assert len(answer) <= len(data) + 4, "an amplifier"
            assert stun.parse_response(answer, txid)[1] == 443
    except ProtocolError:
        pass
    stun.parse_response(data, v.TXID)


def server_stream(data: bytes) -> None:
    """Let a client read a server's bytes, as the probe and the mesh links do."""
    for key in (None, v.SERVER):
        whole = client.Client(v.C_PRIVATE, server_key=key)
        whole.start("derp.example")
        for piece in _pieces(data):
            whole.receive(piece)


def files(data: bytes) -> None:
    """Parse the bytes as every file that the relay reads."""
    for parse in (node_key.parse_key_file, bucket.parse_rate_config):
        try:
            parse(data)
        except ValueError:
            continue
    text = data.decode("utf-8", "replace")
    for parse_text in (allow_file.parse_allow_list, handshake.parse_mesh_key):
        try:
            parsed = parse_text(text)
        except ValueError:
            continue
        assert all(len(key) == 32 for key in ([parsed] if isinstance(parsed, bytes) else parsed))


def command_line(data: bytes) -> None:
    with suppress(flag.HelpWanted):
        flags.parse(data.decode("utf-8", "replace").split("\n"), root=True)


def debug_query(data: bytes) -> None:
    room = Room()
    for number in range(3):
        room.join(number, app="a" * number)
    query = clients.parse_query(data.decode("latin-1"), 1.79e9)
    if query is not None:
        listing = clients.join_clients(
            query, [clients.find_clients(query, room.switch.sessions, room.now, 1.79e9)]
        )
        if listing.next:
            assert clients.parse_query(listing.next[1:], 1.79e9) is not None


_HTTP_WORDS = [
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"CONNECT ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\n\r\n",
    b"/derp",
    b"/debug/clients/?all&format=json",
    b"Upgrade: DERP\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n",
    b"Derp-Fast-Start: 1\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Sec-WebSocket-Protocol: derp\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"X-Tailscale-Challenge: ts_x\r\n",
    b"/generate_204",
    b"Expect: 100-continue\r\n",
]
_FRAME_WORDS = [
    *(
        wire.HEADER.pack(kind, length)
        for kind in (*range(1, 12), *range(16, 23))
        for length in (0, 1, 8, 32, 33, 64, 100)
    ),
    wire.DISCO_MAGIC,
    key_of(1),
    key_of(2),
    key_of(3),
    key_of(9),
    v.SERVER,
    b"M",
]
_JSON_WORDS = [
    b'"meshKey":',
    b'"version":2',
    b'"CanAckPings":true',
    b'"AppName":"',
    b"null",
    b"NaN",
    b"{",
    b"}",
    b"[",
    b"1e999",
    b"\\ud800",
    b'"',
]

_FLAGS = ("a", "c", "stun", "drain", "home", "workers", "certmode")
_FLAG_WORDS = [
    f"-{name}={value}\n".encode() for name in _FLAGS for value in ("", "1", ":443", "manual", "1h", "false")
]

TARGETS = (
    Target("session", session_frames, [session, control, forward], words=_FRAME_WORDS),
    Target("http", http_requests, [http11], words=_HTTP_WORDS),
    Target(
        "websocket",
        websocket_frames,
        [websocket],
        words=[b"\x82\xfe\x80\x00", b"\x82\xff", b"\x88\x82", b"\x89\x80", b"\x00\x81", b"\x02\x81"],
    ),
    Target(
        "proxy",
        proxy_headers,
        [proxy_header],
        words=[
            b"PROXY TCP4 ",
            b"PROXY TCP6 ",
            b"\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
            b" 1.2.3.4",
            b" ::1",
        ],
    ),
    Target(
        "forwarded",
        forwarded_for,
        [proxy_header],
        words=[b"127.0.0.1", b"10.1.2.3", b",", b"[::1]:80", b"::ffff:1.2.3.4", b"\n", b"%eth0"],
    ),
    Target(
        "client_info",
        client_info,
        [handshake],
        (ProtocolError,),
        [v.C, bytes(32), wire.HEADER.pack(2, 104)],
    ),
    Target("json", client_info_json, [handshake], (ProtocolError,), _JSON_WORDS),
    Target(
        "stun",
        stun_packets,
        [stun],
        (ProtocolError,),
        [b"\x80\x22\0\x08tailnode", b"\x80\x28\0\x04", b"\0\x20\0\x08\0\1", b"\x21\x12\xa4\x42"],
    ),
    Target(
        "server",
        server_stream,
        [client, wire, handshake],
        (ProtocolError,),
        [*_FRAME_WORDS, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 403 x\r\n\r\n"],
    ),
    Target(
        "files",
        files,
        [node_key, handshake, bucket, allow_file],
        words=[*_JSON_WORDS, b'"PrivateKey":"privkey:', b"nodekey:", b"0" * 64, b"\n", b"#"],
    ),
    Target("flags", command_line, [flags, flag], (flag.FlagError,), _FLAG_WORDS),
    Target(
        "query",
        debug_query,
        [clients],
        (ValueError,),
        [
            b"all",
            b"&",
            b"key=",
            b"ip=",
            b"cidr=",
            b"sort=-rx",
            b"after=",
            b"afterconn=1",
            b"limit=1",
            b"app=",
            b"format=json",
        ],
    ),
)
