"""The client against a server's bytes, made here by hand, in any chunking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import client as c
from relay.client import Client
from relay.core import handshake as h
from relay.core import wire
from relay.core.wire import ProtocolError
from tests.relay import vectors as v
from tests.relay.packing import pack_health

ANSWER = v.ANSWER_101 + v.SERVER_KEY_FRAME
PRESENT = wire.PeerPresent(v.D, None, 0, 1, "tsnet")
SESSION = [
    (v.SERVER_INFO_FRAME, c.Admitted(h.ServerInfo())),
    (v.RECV_FRAME, c.Received(v.C, v.HELLO)),
    (wire.pack_frame(wire.RECV_PACKET, v.C[:31]), None),
    (wire.KEEP_ALIVE_FRAME, c.Alive()),
    (v.GONE_NOT_HERE_FRAME, c.Gone(v.C, wire.GONE_NOT_HERE)),
    (wire.pack_frame(wire.PEER_GONE, v.C[:31]), None),
    (wire.pack_peer_present(PRESENT), c.Present(PRESENT)),
    (wire.pack_ping(b"12345678"), c.Pinged(b"12345678")),
    (wire.pack_pong(b"12345678"), c.Ponged(b"12345678")),
    (pack_health("dup"), c.Health("dup")),
    (wire.pack_restarting(500, 5000), c.Restarting(500, 5000)),
    (wire.pack_frame(0x77, b"future"), None),
]
STREAM = ANSWER + b"".join(frame for frame, _ in SESSION)
EVENTS = [c.Greeted(v.SERVER), *(event for _, event in SESSION if event is not None)]


def started(**options) -> Client:
    client = Client(v.C_PRIVATE, **options)
    client.start("derp.example.org", ideal_node="900a")
    return client


def test_the_upgrade_request_is_what_proxies_and_derper_expect():
    request = started().outgoing()
    assert request == (
        b"GET /derp HTTP/1.1\r\nHost: derp.example.org\r\nUser-Agent: derpfleet\r\nConnection: Upgrade\r\n"
        b"Ideal-Node: 900a\r\nUpgrade: DERP\r\n\r\n"
    )


@given(st.lists(st.integers(1, 200), max_size=20))
def test_events_do_not_depend_on_how_the_stream_is_cut(cuts):
    client, events, stream = started(), [], STREAM
    for cut in [*cuts, len(stream)]:
        if chunk := stream[:cut]:
            events += client.receive(chunk)
        stream = stream[cut:]
    assert events == EVENTS


def test_the_greeting_is_answered_with_a_client_info():
    client = started(info=h.ClientInfo(app_name="tests"))
    client.outgoing()
    client.receive(ANSWER)
    frame = client.outgoing()
    assert h.parse_client_info(frame[5:], v.SERVER_PRIVATE).info == h.ClientInfo(app_name="tests")
    assert client.outgoing() == b""


def test_a_fast_start_sends_everything_at_once_and_skips_http():
    client = started(server_key=v.SERVER)
    request, _, frame = client.outgoing().partition(b"\r\n\r\n")
    assert b"Derp-Fast-Start: 1" in request
    assert h.parse_client_info(frame[5:], v.SERVER_PRIVATE).key == v.C
    assert client.receive(v.SERVER_KEY_FRAME + v.SERVER_INFO_FRAME) == EVENTS[:2]
    assert client.outgoing() == b""


def test_requests_become_frames():
    client = started(server_key=v.SERVER)
    client.outgoing()
    client.send(v.D, v.HELLO)
    client.ping(b"12345678")
    client.pong(b"12345678")
    client.watch()
    assert client.outgoing() == (
        v.SEND_FRAME + wire.pack_ping(b"12345678") + wire.pack_pong(b"12345678") + wire.WATCH_CONNS_FRAME
    )
    with pytest.raises(ValueError, match="at most 65536"):
        client.send(v.D, bytes(65537))


def test_a_refusal_says_what_the_server_said():
    client = started()
    with pytest.raises(c.NotUpgraded) as error:
        client.receive(
            b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2000\r\n\r\nDERP requires connection upgrade\n"
            + b"x" * 1500
        )
    assert error.value.status == 426
    assert str(error.value).startswith("HTTP 426: DERP requires connection upgrade")
    assert len(error.value.body) == c.MAX_REFUSAL_BODY
    with pytest.raises(c.NotUpgraded, match=r"^HTTP 502$"):
        started().receive(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "bad_http_answer"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "closed_before_greeting"),
        (b"", "bad_http_answer"),
        (v.ANSWER_101 + wire.KEEP_ALIVE_FRAME, "no_server_key"),
        (v.ANSWER_101 + wire.pack_frame(wire.SERVER_KEY, bytes(40)), "bad_server_key"),
        (ANSWER + wire.pack_frame(wire.SERVER_INFO, bytes(60)), "bad_box"),
        (ANSWER + b"\x05\x00\x10\x00\x01", "frame_too_long"),
    ],
)
def test_what_is_not_derp_is_refused(stream, reason):
    client = started()
    with pytest.raises(ProtocolError) as error:
        client.receive(stream)
    assert error.value.reason == reason


@pytest.mark.parametrize("begun", [b"", v.SERVER_KEY_FRAME[:20]])
def test_a_stream_that_ends_before_the_greeting_is_an_error(begun):
    client = started()
    client.receive(v.ANSWER_101 + begun)
    with pytest.raises(ProtocolError, match="closed_before_greeting"):
        client.receive(b"")


def test_the_meta_certificate_names_the_relays_key():
    assert c.find_meta_key([b"leaf", b"..derpkey" + v.SERVER.hex().upper().encode() + b".."]) == v.SERVER
    assert c.find_meta_key([b"leaf"]) is None
