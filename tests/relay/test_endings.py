"""Nothing of a connection stays after FIN, RST or silence, in every state from SYN on."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bench.relay import servers
from relay import client as derp
from relay.core import wire
from relay.core.handshake import make_private_key
from tests.relay.live import Live, Peer, eventually, read_to_end, relay

TIMEOUT_S = 1.5  # -handshake-timeout of the relay under test
REQUEST = (
    f"GET /derp HTTP/1.1\r\nHost: {servers.HOST}\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n".encode()
)


@pytest.fixture(scope="module", params=["plain", "tls"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with relay(
        tmp_path_factory.mktemp("relay"), "-handshake-timeout", f"{TIMEOUT_S}s", tls=request.param == "tls"
    ) as running:
        yield running
        running.assert_undisturbed()


def _connected(live: Live) -> socket.socket:
    return live.tcp()


def _half_hello(live: Live) -> socket.socket:
    sock = live.tcp()
    if live.running.ca is not None:
        out = ssl.MemoryBIO()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
            ssl.MemoryBIO(), out, server_hostname=servers.HOST
        )
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        sock.sendall(out.read()[:100])
    return sock


def _open(live: Live) -> socket.socket:
    return live.open()


def _half_request(live: Live) -> socket.socket:
    sock = live.open()
    sock.sendall(REQUEST[:40])
    return sock


def _upgraded(live: Live) -> socket.socket:
    sock = live.open()
    sock.sendall(REQUEST)
    sock.recv(4096)
    return sock


def _half_client_info(live: Live) -> socket.socket:
    sock = _upgraded(live)
    sock.sendall(wire.HEADER.pack(wire.CLIENT_INFO, 200) + bytes(60))
    return sock


def _logged_in(live: Live) -> socket.socket:
    return live.connect().sock


def _half_header(live: Live) -> socket.socket:
    peer = live.connect()
    peer.raw(b"\x04\x00")
    return peer.sock


def _half_packet(live: Live) -> socket.socket:
    peer = live.connect()
    peer.raw(wire.HEADER.pack(wire.SEND_PACKET, 1232) + bytes(500))
    return peer.sock


UNFINISHED = [_connected, _half_hello, _open, _half_request, _upgraded, _half_client_info]
STATES = [*UNFINISHED, _logged_in, _half_header, _half_packet]


def _fin(sock: socket.socket) -> None:
    sock.close()


def _rst(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _half_close(sock: socket.socket) -> None:
    """Send FIN without reading on; over TLS without close_notify."""
    socket.socket.shutdown(sock, socket.SHUT_WR)
    sock.settimeout(10)
    read_to_end(sock)


def _open_files(live: Live) -> int:
    return len(list(Path(f"/proc/{live.pid}/fd").iterdir()))


@pytest.mark.parametrize("end", [_fin, _rst, _half_close], ids=["fin", "rst", "half-close"])
@pytest.mark.parametrize("reach", STATES, ids=lambda f: f.__name__.strip("_"))
def test_nothing_stays(
    live: Live, reach: Callable[[Live], socket.socket], end: Callable[[socket.socket], None]
) -> None:
    files = _open_files(live)
    for _ in range(3):
        end(reach(live))
    with live.connect():
        pass  # the relay has accepted the connections before it as well
    eventually(lambda: _open_files(live) <= files, 8)


def test_one_that_is_gone_when_admitted_is_no_client(live: Live) -> None:
    """A whole login comes at once, and its client is gone before the answers."""
    with live.connect() as peer:
        server_key = peer.client.server_key
    for _ in range(20):
        client = derp.Client(make_private_key(), server_key=server_key)
        client.start(servers.HOST)
        sock = live.open()
        sock.sendall(client.outgoing())
        _rst(sock)
    eventually(lambda: live.metrics()["derp_current_connections"] == 0)


def test_silence_before_login_ends_the_connection(live: Live) -> None:
    """A client falls silent in any state: all at once, as each takes the whole time limit."""
    began, ended = time.monotonic(), {}

    def wait(name: str, sock: socket.socket) -> None:
        sock.settimeout(4 * TIMEOUT_S)
        with suppress(ConnectionResetError, ssl.SSLError):
            while sock.recv(4096):
                pass
        ended[name] = time.monotonic() - began
        sock.close()

    waiting = [threading.Thread(target=wait, args=(reach.__name__, reach(live))) for reach in UNFINISHED]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join()
    assert sorted(ended) == sorted(reach.__name__ for reach in UNFINISHED)
    assert all(TIMEOUT_S * 0.5 < after < TIMEOUT_S * 3 for after in ended.values()), ended


def test_silence_after_login_does_not(live: Live) -> None:
    with live.connect() as quiet, live.connect() as alice:
        time.sleep(TIMEOUT_S * 2)
        alice.send(quiet.key, b"awake?")
        assert quiet.expect(derp.Received).packet == b"awake?"


def test_one_byte_at_a_time_does_not_extend_the_handshake(live: Live) -> None:
    sock = live.open()
    began = time.monotonic()
    try:
        for byte in REQUEST:
            sock.sendall(bytes([byte]))
            time.sleep(0.1)
    except OSError:
        pass
    assert time.monotonic() - began < TIMEOUT_S * 3
    sock.close()


@pytest.mark.parametrize("end", [_fin, _rst], ids=["fin", "rst"])
def test_peers_learn_of_the_end(live: Live, end: Callable[[socket.socket], None]) -> None:
    with live.connect() as bob:
        alice = live.connect()
        alice.send(bob.key, b"hello")
        bob.expect(derp.Received)
        end(alice.sock)
        assert bob.expect(derp.Gone) == derp.Gone(alice.key, wire.GONE_DISCONNECTED)


def test_packets_sent_just_before_the_end_arrive(live: Live) -> None:
    with live.connect() as bob:
        alice = live.connect()
        for n in range(20):
            alice.client.send(bob.key, bytes([n]) * 1000)
        alice.flush()
        alice.close()
        assert [bob.expect(derp.Received).packet[0] for _ in range(20)] == list(range(20))


def test_the_same_key_comes_back_at_once(live: Live) -> None:
    """A laptop changes networks: its old connection ends after the new one has logged in."""
    key = make_private_key()
    with live.connect() as bob:
        old = live.connect(key)
        for n in range(5):
            new = live.connect(key)
            _rst(old.sock)
            bob.send(new.key, bytes([n]))
            assert new.expect(derp.Received).packet == bytes([n])
            old = new
        old.close()


def test_a_thousand_half_open_handshakes_of_one_address(live: Live) -> None:
    """They are all cut in time, cost little, and a client gets in beside them."""
    before, counted = live.usage().rss, live.metrics()
    files = _open_files(live)
    with ExitStack() as stack:
        for _ in range(1000):
            stack.enter_context(_half_request(live) if live.running.ca is None else _half_hello(live))
        with live.connect() as alice, live.connect() as bob:
            alice.send(bob.key, b"among them")
            assert bob.expect(derp.Received, 10).packet == b"among them"
        grown = live.usage().rss - before
        eventually(lambda: _open_files(live) <= files, 4 * TIMEOUT_S)
    eventually(
        lambda: live.counted(counted, "^relay_refusals.*(too_many_handshakes_here|timeout)") == 1000
    )  # the one or the other
    assert grown < 60_000_000


def test_churn_of_logins_leaves_nothing(live: Live) -> None:
    for _ in range(50):
        live.connect().close()
    before, files = live.usage().rss, _open_files(live)
    for n in range(500):
        peer: Peer = live.connect()
        _rst(peer.sock) if n % 2 else peer.close()
    eventually(lambda: _open_files(live) <= files)
    eventually(lambda: live.metrics()["derp_current_connections"] == 0)
    assert live.usage().rss - before < 5_000_000
