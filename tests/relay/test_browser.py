"""A browser's way in: WebSocket messages around DERP's stream, on a real relay."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from bench.relay.upgrade import make_key, pack_upgrade
from relay.core import wire
from relay.core.handshake import ClientInfo, make_private_key, pack_client_info, parse_server_info, public_key
from relay.http.websocket import WebSocket, accept_token
from tests.relay import live
from tests.relay.live import Live


@pytest.fixture(scope="module", params=["plain", "tls"])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live.relay(tmp_path_factory.mktemp("relay"), tls=request.param == "tls") as running:
        yield running
        running.assert_undisturbed()


def read_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        got = sock.recv(1)
        assert got, head
        head += got
    return head


class Browser:
    """A client on WebSocket. Like a browser's library it refuses messages above 32 KiB."""

    def __init__(self, relay: Live) -> None:
        self.sock = relay.open()
        self.private = make_private_key()
        self.key = public_key(self.private)
        self.ws = WebSocket(client=True)
        self._frames = wire.FrameReader()
        self._waiting: list[tuple[int, bytes]] = []
        nonce = make_key()
        self.sock.sendall(pack_upgrade("derp.example", "/derp", nonce))
        head = read_head(self.sock).decode()
        assert head.startswith("HTTP/1.1 101 ") and f"Sec-WebSocket-Accept: {accept_token(nonce)}" in head
        assert "Sec-WebSocket-Protocol: derp\r\n" in head and "Derp-" not in head
        kind, payload = self.frame()
        assert kind == wire.SERVER_KEY
        server = wire.parse_server_key(payload)
        self.send(pack_client_info(self.private, server, ClientInfo()))
        kind, payload = self.frame()
        assert kind == wire.SERVER_INFO and parse_server_info(payload, self.private, server).version == 2

    def send(self, data: bytes) -> None:
        self.sock.sendall(self.ws.pack(data))

    def frame(self) -> tuple[int, bytes]:
        while not self._waiting:
            data = self.sock.recv(65536)
            assert data, "hung up"
            arrived, reply = self.ws.feed(data)
            if reply:
                self.sock.sendall(reply)
            self._waiting += self._frames.receive(arrived)
        return self._waiting.pop(0)


@pytest.mark.parametrize("size", [0, 1, 1200, 60_000, 65_536])
def test_packets_between_a_browser_and_an_ordinary_client(relay: Live, size: int) -> None:
    browser, packet = Browser(relay), os.urandom(size)
    with browser.sock, relay.connect() as peer:
        browser.send(wire.pack_send_packet(peer.key, packet))
        got = peer.expect(live.derp.Received)
        assert (got.source, got.packet) == (browser.key, packet)
        peer.send(browser.key, packet)
        assert browser.frame() == (wire.RECV_PACKET, peer.key + packet)
        assert browser.ws.closed == 0


def test_frames_and_messages_have_nothing_to_do_with_each_other(relay: Live) -> None:
    a, b = Browser(relay), Browser(relay)
    with a.sock, b.sock:
        stream = (
            wire.pack_send_packet(b.key, b"one")
            + wire.pack_send_packet(b.key, b"two")
            + wire.pack_ping(b"12345678")
        )
        for start in range(0, len(stream), 7):
            a.send(stream[start : start + 7])
        assert [b.frame()[1][32:] for _ in range(2)] == [b"one", b"two"]
        assert a.frame() == (wire.PONG, b"12345678")


def test_another_subprotocol_is_closed_with_1008(relay: Live) -> None:
    with relay.open() as sock:
        sock.sendall(
            pack_upgrade("derp.example", "/derp", make_key()).replace(b"Protocol: derp", b"Protocol: derpy")
        )
        assert b"101" in read_head(sock)
        rest = b"".join(iter(lambda: sock.recv(4096), b""))
    assert rest[:1] == b"\x88" and rest[2:4] == (1008).to_bytes(2, "big") and len(rest) == 2 + rest[1], (
        "and nothing behind it"
    )


def test_a_close_comes_back_and_the_connection_ends(relay: Live) -> None:
    browser = Browser(relay)
    with browser.sock:
        browser.sock.sendall(browser.ws.close(1001, "tab closed"))
        data = b"".join(iter(lambda: browser.sock.recv(4096), b""))
    assert data.startswith(b"\x88\x02" + (1001).to_bytes(2, "big"))
