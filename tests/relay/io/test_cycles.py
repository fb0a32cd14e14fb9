"""A refused connection leaves nothing to the cycle collector, whose pauses stop every client.

The relay's own parts on real sockets, in this process.
"""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from bench.relay import certs
from bench.relay.upgrade import make_key, pack_upgrade
from relay import flags
from relay.admission.admission import Admission
from relay.clients import Clients, Secrets
from relay.core import handshake, wire
from relay.core.handshake import ClientInfo, make_private_key, pack_client_info, public_key
from relay.core.reasons import Answer, Refusal
from relay.http import answers, http11
from relay.io.arrival import Arrival
from relay.io.gate import Verdict
from relay.io.loop import Loop
from relay.io.stream import Stream
from relay.io.tls import make_server_context
from relay.keys.node_key import NodeKey
from relay.log import Log
from relay.tasks import Tasks

KEY = make_private_key()
HOST = b"Host: x\r\n"
UPGRADE = b"GET /derp HTTP/1.1\r\n" + HOST + b"Upgrade: DERP\r\n\r\n"
WEBSOCKET = pack_upgrade("x", "/derp", make_key())


class Desk:
    """The relay's clients on a loop that the test turns. `meet` makes a connection."""

    def __init__(self, *argv: str, context: ssl.SSLContext | None = None) -> None:
        self.loop = Loop()
        config = flags.parse(["-c=k", "-a=:1", *argv])
        stopping = self.loop.create_future()
        self.tasks = Tasks(self.loop, stopping, Log("server"))
        key = NodeKey.of(KEY)
        self.clients = Clients(config, self.loop, key, Secrets(None, None), self.tasks.spawn)
        self.loop.poller.end_of_round = self.clients.tick.flush
        self._pages = http11.Pages(key.public, lambda: "now", self.clients.proxies.client_of)
        self._context = context

    def meet(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        Arrival(
            self.clients,
            Stream(self.loop, ours),
            ("127.0.0.1", 5),
            pages=self._pages,
            answer=answers.answer,
            context=self._context,
            proxied=True,
        )
        return theirs

    def turn(self, rounds: int = 3) -> None:
        for _ in range(rounds):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def close(self) -> None:
        self.loop.close()


def _info(fields: bytes) -> bytes:
    """Return a CLIENT_INFO frame whose box holds this text."""
    mine = make_private_key()
    box = handshake.crypto_box_afternm(fields, bytes(24), handshake.agree(public_key(KEY), mine))
    return wire.pack_frame(wire.CLIENT_INFO, public_key(mine) + bytes(24) + box)


def _login(**info: Any) -> bytes:
    return pack_client_info(make_private_key(), public_key(KEY), replace(ClientInfo(), **info))


# Name: (flags, bytes that are sent, the reason that is counted).
REFUSED: dict[str, tuple[tuple[str, ...], bytes, str]] = {
    "no HTTP": ((), b"\x16\x03\x01\x02\x00garbage\r\n\r\n", "bad_http"),
    "no host": ((), b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n", "bad_http"),
    "a long head": ((), b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, "bad_http"),
    "many fields": ((), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "bad_http"),
    "an odd coding": ((), b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: x\r\n\r\n", "bad_http"),
    "a body": (
        (),
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n" + bytes(70_000),
        "http_body_too_long",
    ),
    "a crowd of requests": ((), (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n") * 20, "too_many_http_requests"),
    "no PROXY header": (("-trusted-proxies=127.0.0.1", "-proxy-protocol"), b"GET /", "no_proxy_header"),
    "a bad PROXY header": (
        ("-trusted-proxies=127.0.0.1", "-proxy-protocol"),
        b"PROXY TCP4 a b 1 2\r\n",
        "bad_proxy_header",
    ),
    "a WebSocket without derp": (
        (),
        WEBSOCKET.replace(b"Protocol: derp", b"Protocol: derpy"),
        "websocket_without_derp",
    ),
    "a WebSocket that breaks the RFC": ((), WEBSOCKET + b"\x82\x05hello", "websocket_closed_1002"),
    "another frame first": ((), UPGRADE + wire.KEEP_ALIVE_FRAME, "no_client_info"),
    "a long introduction": ((), UPGRADE + wire.HEADER.pack(2, 1 << 20), "bad_client_info_length"),
    "a zero key": ((), UPGRADE + wire.pack_frame(2, bytes(80)), "bad_key"),
    "a low-order key": ((), UPGRADE + wire.pack_frame(2, b"\1" + bytes(79)), "bad_key"),
    "a box that does not open": ((), UPGRADE + wire.pack_frame(2, b"\2" * 80), "bad_box"),
    "no JSON": ((), UPGRADE + _info(b"x"), "bad_client_info"),
    "nested JSON": ((), UPGRADE + _info(b'{"x":' * 20_000), "bad_client_info"),
    "a bad mesh key": ((), UPGRADE + _info(b'{"meshKey":"xyz"}'), "bad_client_info"),
    "a bad app name": ((), UPGRADE + _info(b'{"AppName":"\\n"}'), "bad_app_name"),
    "an app name that is refused": (
        ("-disallow-app-names=x",),
        UPGRADE + _login(app_name="x"),
        "disallowed_app_name",
    ),
    "the accept limit": (
        ("-accept-connection-limit=0.000001", "-accept-connection-burst=1"),
        b"",
        "accept_limit",
    ),
}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Let only the test collect."""
    gc.disable()
    yield
    gc.enable()


def _left_behind(connect: Callable[[], None], count: int = 20) -> float:
    """Return how many objects each connection leaves to the collector.

    The first ones may fill caches.
    """
    connect()
    connect()
    gc.collect()
    for _ in range(count):
        connect()
    return gc.collect() / count


def _refusals(desk: Desk) -> dict[str, int]:
    return {name: n for name, n in desk.clients.tally.refusals.by_label().items() if n}


@pytest.mark.parametrize(("argv", "data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_no_refused_connection_leaves_cycles(argv: tuple[str, ...], data: bytes, reason: str) -> None:
    desk = Desk(*argv)

    def connect() -> None:
        with desk.meet() as sock:
            if data:
                with suppress(BrokenPipeError):
                    sock.sendall(data[:60_000])
            desk.turn()
            with suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data[60_000:])
            desk.turn()
        desk.turn()
        assert not desk.clients.arrivals

    left = _left_behind(connect)
    assert reason in _refusals(desk)
    desk.close()
    assert left == 0


@pytest.mark.parametrize("after", [b"", UPGRADE[:20], UPGRADE, UPGRADE + _login()[:50]], ids=range(4))
@pytest.mark.parametrize("how", ["hangs up", "is late", "is displaced"])
def test_no_connection_that_ends_on_the_way_leaves_cycles(after: bytes, how: str) -> None:
    desk = Desk()

    def connect() -> None:
        with desk.meet() as sock:
            if after:
                sock.sendall(after)
            desk.turn()
            for arrival in [*desk.clients.arrivals]:
                if how == "is late":
                    arrival.expire()
                elif how == "is displaced":
                    arrival.give_up(Refusal.TOO_MANY_HANDSHAKES_HERE)
        desk.turn()
        assert not desk.clients.arrivals

    left = _left_behind(connect)
    desk.close()
    assert left == 0


class Strict:
    """A check that refuses."""

    async def ask(self, _key: bytes, _address: str, *_more: object) -> Verdict:
        return Verdict(False, Answer.VERIFY_URL_REFUSED)


def test_no_client_that_admission_refuses_leaves_cycles() -> None:
    desk = Desk()
    desk.clients.admission = Admission([Strict()])

    def connect() -> None:
        with desk.meet() as sock:
            sock.sendall(UPGRADE + _login())
            desk.turn(6)
        desk.turn()
        assert not desk.clients.arrivals

    left = _left_behind(connect)
    assert "verify_url_refused" in _refusals(desk)
    desk.close()
    assert left == 0


def test_no_admitted_client_that_breaks_a_rule_leaves_cycles() -> None:
    desk = Desk()

    def connect() -> None:
        with desk.meet() as sock:
            sock.sendall(UPGRADE + _login())
            desk.turn()
            sock.sendall(wire.pack_frame(wire.SEND_PACKET, b"short"))
            desk.turn()
        desk.turn()
        assert not desk.clients.links

    left = _left_behind(connect)
    assert desk.clients.tally.closes.by_label()["short_packet"] > 20
    desk.close()
    assert left == 0


@pytest.mark.parametrize("kind", ["garbage", "too old", "hangs up", "garbage in a record", "bad request"])
def test_no_tls_connection_that_fails_leaves_cycles(tmp_path: Any, kind: str) -> None:
    certs.make(tmp_path, "x")
    desk = Desk(context=make_server_context(tmp_path / "x.crt", tmp_path / "x.key", ""))
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname, theirs.verify_mode = False, ssl.CERT_NONE

    def shake(sock: socket.socket) -> ssl.SSLObject:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = theirs.wrap_bio(incoming, outgoing, server_hostname="x")
        for _ in range(4):
            with suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            if outgoing.pending:
                sock.sendall(outgoing.read())
            desk.turn()
            with suppress(BlockingIOError):
                incoming.write(sock.recv(65536))
        if kind == "bad request":
            tls.write(b"GET / HTTP/9\r\n\r\n")
            sock.sendall(outgoing.read())
        return tls

    def connect() -> None:
        with desk.meet() as sock:
            if kind == "garbage":
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            elif kind == "too old":
                sock.sendall(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
            elif kind != "hangs up":
                shake(sock)
                if kind == "garbage in a record":
                    sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            desk.turn()
        desk.turn()
        assert not desk.clients.arrivals

    left = _left_behind(connect)
    assert _refusals(desk)
    desk.close()
    assert left == 0
