"""Bad input gets a counted reason, and nothing else.

No exception in the log, no growth, no other client disturbed. Each row of the list has its test,
against a running relay. The reasons are the words that /metrics shows.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bench.relay import servers
from bench.relay.upgrade import make_key, pack_upgrade
from relay import client as derp
from relay.core import stun, wire
from tests.relay.live import HungUp, Live, Steady, eventually, read_to_end, relay
from tests.relay.packing import pack_forward_packet

UPGRADE = (
    f"GET /derp HTTP/1.1\r\nHost: {servers.HOST}\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n".encode()
)


@pytest.fixture(scope="module", params=["plain", "tls"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with relay(tmp_path_factory.mktemp("relay"), tls=request.param == "tls") as running:
        yield running
        running.assert_undisturbed()


@pytest.fixture
def undisturbed(live: Live) -> Iterator[None]:
    """Let a pair talk while the test misbehaves. It loses nothing."""
    with live.connect() as alice, live.connect() as bob:
        steady = Steady(alice, bob)
        yield
        stream = steady.finish()
    assert stream.received == stream.sent > 0


def _closed_for(live: Live, reason: str, data: bytes) -> None:
    """Send `data` from a logged-in client. It is hung up on, and `reason` is counted once."""
    before = live.metrics()
    with live.connect() as mallory:
        with suppress(HungUp):
            mallory.raw(data)
        mallory.wait_hangup()
    eventually(lambda: live.counted(before, f'^relay_closes{{reason="{reason}"}}$') == 1)


def _refused(live: Live, before: dict[str, float], reason: str) -> float:
    return live.counted(before, f'^relay_refusals{{reason="{reason}"}}$')


def test_any_bytes_in_any_chunking(live: Live, undisturbed: None) -> None:
    rng = random.Random(4)
    before = live.usage().rss
    starts = [
        b"",
        UPGRADE,
        UPGRADE + wire.pack_frame(wire.CLIENT_INFO, bytes(80)),
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00",
    ]
    for n in range(200):
        sock = live.open() if n % 4 else live.tcp()
        data = starts[n % len(starts)] + rng.randbytes(rng.randrange(1, 5000))
        try:
            while data:
                size = rng.choice([1, 7, 64, 1000, 5000])
                sock.sendall(data[:size])
                data = data[size:]
        except OSError:
            pass
        sock.close()
    assert live.usage().rss - before < 10_000_000


def test_any_frames_of_a_client(live: Live, undisturbed: None) -> None:
    rng = random.Random(5)
    for _ in range(100):
        with live.connect() as mallory:
            try:
                for _ in range(20):
                    mallory.raw(
                        wire.HEADER.pack(rng.randrange(256), rng.choice([0, 1, 8, 31, 32, 64, 1000]))
                        + rng.randbytes(40)
                    )
            except HungUp:
                pass


def test_an_oversized_packet(live: Live, undisturbed: None) -> None:
    _closed_for(live, "oversized_packet", wire.HEADER.pack(wire.SEND_PACKET, 32 + wire.MAX_PACKET + 1))


def test_an_oversized_unknown_frame(live: Live, undisturbed: None) -> None:
    _closed_for(live, "unknown_frame_too_long", wire.HEADER.pack(0x77, wire.MAX_UNKNOWN + 1))


def test_a_client_info_of_1_mb(live: Live, undisturbed: None) -> None:
    before, used = live.metrics(), live.usage().rss
    for _ in range(20):
        sock = live.open()
        sock.sendall(UPGRADE)
        with suppress(OSError):
            sock.sendall(wire.HEADER.pack(wire.CLIENT_INFO, 1 << 20) + bytes(1 << 20))
        read_to_end(sock)
    eventually(lambda: _refused(live, before, "bad_client_info_length") == 20)
    assert live.usage().rss - used < 5_000_000


def test_a_client_info_that_no_key_opens(live: Live, undisturbed: None) -> None:
    before = live.metrics()
    sock = live.open()
    sock.sendall(UPGRADE + wire.pack_frame(wire.CLIENT_INFO, os.urandom(150)))
    while sock.recv(65536):
        pass
    sock.close()
    eventually(lambda: _refused(live, before, "bad_box") == 1)


def test_a_watcher_without_the_mesh_key(live: Live, undisturbed: None) -> None:
    _closed_for(live, "not_a_mesh_peer", wire.WATCH_CONNS_FRAME)


def test_a_forwarder_without_the_mesh_key(live: Live, undisturbed: None) -> None:
    _closed_for(live, "not_a_mesh_peer", pack_forward_packet(bytes(31) + b"1", bytes(31) + b"2", b"x"))


def test_a_closer_of_peers_without_the_mesh_key(live: Live, undisturbed: None) -> None:
    with live.connect() as bob:
        _closed_for(live, "not_a_mesh_peer", wire.pack_close_peer(bob.key))
        bob.client.ping(b"not mine")
        bob.flush()
        bob.expect(derp.Ponged)


@pytest.mark.parametrize("size", [0, 7, 1001])
def test_a_ping_of_a_wrong_size(live: Live, undisturbed: None, size: int) -> None:
    _closed_for(live, "bad_ping_length", wire.pack_frame(wire.PING, bytes(size)))


@pytest.mark.parametrize("size", [0, 2])
def test_a_note_of_a_wrong_size(live: Live, undisturbed: None, size: int) -> None:
    _closed_for(live, "bad_note_preferred_length", wire.pack_frame(wire.NOTE_PREFERRED, bytes(size)))


def test_a_packet_without_a_destination(live: Live, undisturbed: None) -> None:
    _closed_for(live, "short_packet", wire.pack_frame(wire.SEND_PACKET, bytes(31)))


def test_a_second_login_in_the_same_connection_is_passed_over(live: Live, undisturbed: None) -> None:
    with live.connect() as mallory:
        mallory.raw(wire.pack_frame(wire.CLIENT_INFO, bytes(100)))
        mallory.client.ping(b"go on 8!")
        mallory.flush()
        mallory.expect(derp.Ponged)


def _websocket(live: Live) -> socket.socket:
    sock = live.open()
    sock.sendall(pack_upgrade(servers.HOST, "/derp", make_key()))
    answer = sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101")
    return sock


def test_a_websocket_with_text_frames(live: Live, undisturbed: None) -> None:
    before = live.metrics()
    sock = _websocket(live)
    sock.sendall(bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello")
    received = b"".join(iter(lambda: sock.recv(4096), b""))
    sock.close()
    assert struct.pack(">H", 1003) in received
    eventually(lambda: live.counted(before, "relay_(closes|refusals).*websocket_closed_1003") == 1)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x05hello", 1002),
        (b"\xf2\x80\0\0\0\0", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x7e" + bytes(130), 1002),
        (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
    ],
    ids=["unmasked", "reserved bits", "unknown opcode", "long ping", "2^64 bytes"],
)
def test_a_websocket_that_breaks_the_rules(live: Live, undisturbed: None, data: bytes, code: int) -> None:
    before = live.metrics()
    sock = _websocket(live)
    sock.sendall(data)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    sock.close()
    eventually(lambda: _refused(live, before, f"websocket_closed_{code}") == 1)


def _ask_stun(live: Live, packet: bytes) -> bytes | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.sendto(packet, ("127.0.0.1", live.running.stun_port))
        try:
            return sock.recv(2000)
        except TimeoutError:
            return None


def _stun_counted(live: Live, before: dict[str, float], disposition: str) -> float:
    return live.counted(before, f'^stun_requests{{disposition="{disposition}"}}$')


def test_stun_with_a_wrong_fingerprint(live: Live) -> None:
    before = live.metrics()
    request = stun.pack_request(os.urandom(12))
    assert _ask_stun(live, request) is not None
    assert _ask_stun(live, request[:-1] + bytes([request[-1] ^ 1])) is None
    assert _ask_stun(live, request[:19]) is None
    assert _ask_stun(live, os.urandom(40)) is None
    eventually(lambda: _stun_counted(live, before, "not_stun") == 3)


def test_stun_is_never_an_amplifier(live: Live) -> None:
    request = stun.pack_request(os.urandom(12))
    answer = _ask_stun(live, request)
    assert answer is not None and len(answer) <= len(request)


@pytest.mark.skipif(os.geteuid() != 0, reason="a raw socket is needed to send from port 0")
def test_stun_from_port_0(live: Live) -> None:
    before = live.metrics()
    request = stun.pack_request(os.urandom(12))
    udp = struct.pack(">HHHH", 0, live.running.stun_port, 8 + len(request), 0) + request
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        for _ in range(20):
            raw.sendto(udp, ("127.0.0.1", 0))
    assert _ask_stun(live, request) is not None
    eventually(lambda: _stun_counted(live, before, "write_error") == 20)


def test_a_frozen_process_goes_on(live: Live) -> None:
    """The clock jumps when a machine sleeps: no client is cut off for it."""
    with live.connect() as alice, live.connect() as bob:
        live.signal(signal.SIGSTOP)
        alice.send(bob.key, b"while it slept")
        time.sleep(1.5)
        live.signal(signal.SIGCONT)
        assert bob.expect(derp.Received).packet == b"while it slept"
        alice.send(bob.key, b"and after")
        assert bob.expect(derp.Received).packet == b"and after"


JUMPING = """
import itertools, runpy, sys, time
real, jumps = time.time, itertools.cycle([0, 86400 * 365, -86400 * 365])
time.time = lambda: real() + next(jumps)
sys.argv[0] = "relay"
runpy.run_module("relay", run_name="__main__")
"""


def test_a_wall_clock_that_jumps(tmp_path: Path) -> None:
    server = servers.relay()
    jumping = servers.Server("relay", (server.argv[0], "-c", JUMPING), env=server.env)
    with servers.running(jumping, tmp_path) as running:
        live = Live(running)
        with live.connect() as alice, live.connect() as bob:
            for n in range(50):
                alice.send(bob.key, bytes([n]))
                assert bob.expect(derp.Received).packet == bytes([n])
        live.assert_undisturbed()


HTTP_MESSES = {  # name: (the bytes, the reason that is counted)
    "no host": (b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n", "bad_http"),
    "endless header": (b"GET /derp HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000, "bad_http"),
    "many headers": (b"GET /derp HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000, "bad_http"),
    "two lengths": (
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "bad_http",
    ),
    "endless body": (
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"a" * 200_000,
        "http_body_too_long",
    ),
    "chunks": (
        b"POST /derp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "http_body_too_long",
    ),
    "nul": (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", "bad_http"),
    "old": (b"GET /derp HTTP/0.9\r\n\r\n", "bad_http"),
    "tunnel": (b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", ""),
    "h2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "bad_http"),
    "pipelined": (b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n" * 500, "too_many_http_requests"),
}


@pytest.mark.parametrize(("mess", "reason"), HTTP_MESSES.values(), ids=HTTP_MESSES.keys())
def test_http_messes(live: Live, undisturbed: None, mess: bytes, reason: str) -> None:
    before, counted = live.usage().rss, live.metrics()
    with ExitStack() as stack:
        for _ in range(10):
            sock = stack.enter_context(live.open())
            with suppress(OSError):
                sock.sendall(mess)
        time.sleep(0.2)
        assert live.usage().rss - before < 5_000_000
        eventually(lambda: _refused(live, counted, reason) == (10 if reason else 0))


def test_one_that_asks_for_pages_and_never_reads(live: Live, undisturbed: None) -> None:
    before = live.metrics()
    with live.open(small_window=True) as sock, pytest.raises(OSError):
        for _ in range(2000):
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.02)  # one after the other: many at once would be hung up on for that
    eventually(lambda: _refused(live, before, "slow_reader") == 1)


@pytest.mark.parametrize("path", ["/metrics", "/debug/", "/debug/clients/"])
def test_debug_pages_are_not_for_proxied_peers(live: Live, path: str) -> None:
    with live.open() as sock:
        headers = "Host: x\r\nX-Forwarded-For: 198.51.100.7\r\nConnection: close\r\n"
        sock.sendall(f"GET {path} HTTP/1.1\r\n{headers}\r\n".encode())
        assert sock.recv(4096).split(b" ")[1] in (b"403", b"404")


def test_sends_to_itself_and_to_unknown_keys_are_cheap(live: Live, undisturbed: None) -> None:
    with live.connect() as mallory:
        unknown = os.urandom(32)
        for _ in range(200):
            for _ in range(20):
                mallory.client.send(unknown, bytes(1200))
            mallory.flush()
        mallory.client.ping(b"all done")
        mallory.flush()
        mallory.expect(derp.Ponged)


def test_ten_thousand_unknown_keys_cost_no_memory(live: Live, undisturbed: None) -> None:
    """The relay's memory per destination is bounded."""
    before = live.usage().rss
    with live.connect() as mallory:
        for _ in range(100):
            for _ in range(200):
                mallory.client.send(os.urandom(32), b"x" * 64)
            mallory.flush()
        mallory.client.ping(b"all done")
        mallory.flush()
        mallory.expect(derp.Ponged)
    assert live.usage().rss - before < 5_000_000


def test_peers_that_come_and_go_cost_their_receiver_no_memory(live: Live) -> None:
    with live.connect() as bob:
        for _ in range(200):
            with live.connect() as passing:
                passing.send(bob.key, b"hi")
                assert bob.expect(derp.Received).source == passing.key
            assert isinstance(bob.expect(derp.Gone), derp.Gone)
