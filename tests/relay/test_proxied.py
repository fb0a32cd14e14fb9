"""Behind a proxy limits, pages and the admission controller see the client's own address.

Real processes. Connections from 127.0.0.2 are the proxy's; 127.0.0.1 is a client like any other.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.relay import servers
from relay.core.handshake import make_private_key
from tests.relay import live
from tests.relay.httpserver import Script, serving
from tests.relay.live import HungUp, Live, Peer

PROXY = "127.0.0.2"
HEADERS = {
    "198.51.100.7:4711": b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 443\r\n",
    "[2001:db8::7]:4711": b"PROXY TCP6 2001:db8::7 ::1 4711 443\r\n",
    "198.51.100.8:4711": b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack(">H4s4sHH", 12, b"\xc6\x33\x64\x08", b"\x7f\0\0\1", 4711, 443),
}


def get(port: int, path: str, source: str = "127.0.0.1") -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5, source_address=(source, 0))
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def from_proxy(relay: Live, header: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", relay.running.port), timeout=10, source_address=(PROXY, 0))
    try:
        sock.sendall(header)
        return relay.wrap(sock)
    except OSError:
        sock.close()
        raise


def remotes(port: int) -> list[str]:
    listing = json.loads(get(port, "/debug/clients/?all&format=json&sort=conn"))
    return [client["remote"] for client in listing["clients"]]


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Live, int]]:
    """Run a relay that expects PROXY headers from the proxy.

    Return it and the port of its debug pages.
    """
    port = servers.free_port(socket.SOCK_STREAM)
    flags = [
        "-trusted-proxies", PROXY, "-proxy-protocol", "-connections-per-address", "2", "-metrics-listen",
        f"127.0.0.1:{port}",
    ]
    with live.relay(tmp_path, *flags, tls=request.param) as relay:
        yield relay, port


def test_a_proxy_header_names_the_client(proxied: tuple[Live, int]) -> None:
    relay, inside = proxied
    with ExitStack() as stack:
        for header in HEADERS.values():
            stack.enter_context(Peer(from_proxy(relay, header)).login())
        direct = stack.enter_context(relay.connect())
        assert remotes(inside)[:3] == list(HEADERS) and remotes(inside)[3].startswith("127.0.0.1:")
        stack.enter_context(Peer(from_proxy(relay, HEADERS["198.51.100.7:4711"])).login())
        with pytest.raises((HungUp, OSError)), from_proxy(relay, HEADERS["198.51.100.7:4711"]) as sock:
            Peer(sock).login()
        direct.send(direct.key, b"undisturbed")
    refusals = get(inside, "/metrics")
    assert 'relay_refusals{reason="too_many_connections"} 1' in refusals


@pytest.mark.parametrize(
    "junk", [b"GET /derp/probe HTTP/1.1\r\n\r\n", b"PROXY TCP9 x\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_a_proxy_that_says_nothing_proper_is_hung_up_on(proxied: tuple[Live, int], junk: bytes) -> None:
    relay, inside = proxied
    with socket.create_connection(
        ("127.0.0.1", relay.running.port), timeout=5, source_address=(PROXY, 0)
    ) as sock:
        sock.sendall(junk)
        assert sock.recv(1) == b""
    assert "proxy_header" in get(inside, "/metrics")


def test_the_debug_listener_expects_no_header(proxied: tuple[Live, int]) -> None:
    """Prometheus may run on the proxy's machine."""
    _, inside = proxied
    assert "derp_accepts" in get(inside, "/metrics", source=PROXY)


@pytest.fixture
def controller() -> Iterator[tuple[str, Script]]:
    """An admission controller that admits every client and remembers the requests."""
    script, loop, up, urls = Script((200, b'{"Allow":true}')), asyncio.new_event_loop(), threading.Event(), []
    done = asyncio.Event()

    async def run() -> None:
        async with serving(script) as url:
            urls.append(url)
            up.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert up.wait(5)
    yield urls[0], script
    loop.call_soon_threadsafe(done.set)
    thread.join(5)
    loop.close()


def test_forwarded_for_reaches_the_controller_and_the_pages(
    tmp_path: Path, controller: tuple[str, Script]
) -> None:
    url, script = controller
    port = servers.free_port(socket.SOCK_STREAM)
    flags = [
        "-trusted-proxies",
        PROXY,
        "-verify-client-url",
        f"{url}/verify",
        "-metrics-listen",
        f"127.0.0.1:{port}",
    ]
    request = (
        "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
        "X-Forwarded-For: 6.6.6.6, 198.51.100.9\r\n\r\n"
    )
    with live.relay(tmp_path, *flags, tls=False) as relay, ExitStack() as stack:
        for source in (PROXY, "127.0.0.1"):
            sock = socket.create_connection(
                ("127.0.0.1", relay.running.port), timeout=5, source_address=(source, 0)
            )
            peer = stack.enter_context(Peer(sock, make_private_key()))
            peer.client.start(servers.HOST)
            peer.client.outgoing()
            peer.raw(request.encode())
            peer.expect(live.derp.Admitted)
        asked = [json.loads(body)["Source"] for _, _, _, body in script.requests]
        assert asked == ["198.51.100.9", "127.0.0.1"], "strangers are not believed"
        assert remotes(port)[0] == "198.51.100.9:0"


def test_debug_pages_are_not_for_what_a_proxy_passes_on(tmp_path: Path) -> None:
    """Not even for a proxy that does not name the client."""
    with live.relay(tmp_path, "-trusted-proxies", PROXY, tls=False) as relay:
        assert get(relay.running.port, "/debug/check", source=PROXY) == "debug access denied\n"
        assert "okay" in get(relay.running.port, "/debug/check")


def test_a_proxys_connections_are_under_the_accept_limit(tmp_path: Path) -> None:
    flags = ("-trusted-proxies", PROXY, "-accept-connection-limit", "0.01", "-accept-connection-burst", "3")
    port = servers.free_port(socket.SOCK_STREAM)
    with (
        live.relay(tmp_path, *flags, "-metrics-listen", f"127.0.0.1:{port}", tls=False) as relay,
        ExitStack() as stack,
    ):
        for _ in range(5):
            stack.enter_context(from_proxy(relay, b"GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n"))
        live.eventually(lambda: 'relay_refusals{reason="accept_limit"}' in get(port, "/metrics"))
