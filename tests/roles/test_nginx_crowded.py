"""A real nginx with our settings while one address takes what it may: others still get answers."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from engine.render import TEMPLATES
from inventory.model import Relay
from roles.firewall.nftables import _SHARE_A_SECOND
from tests.relay.live import eventually
from tests.roles.test_nginx_live import Front, get, serving

CROWD, OTHER = "127.0.0.2", "127.0.0.1"
HEADER_S = 10  # client_header_timeout of nginx-server.conf.j2
ROOM = int(re.findall(r"worker_connections (\d+);", (TEMPLATES / "nginx.conf.j2").read_text())[0])
SLOW_HEAD = b"GET / HTTP/1.1\r\nHost: hk1.exa"
SLOW_HELLO = bytes.fromhex("16030100c8010000c40303")  # the start of a TLS ClientHello


def most_of_one_address() -> int:
    """Return how many connections the firewall lets one address open within `HEADER_S`."""
    burst = int(Relay().connections_per_address)
    return burst + HEADER_S * (burst // _SHARE_A_SECOND)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Run nginx with 512 connections and our settings, but a short time for heads."""

    def hastily(conf: str) -> str:
        assert conf.count(f"client_header_timeout {HEADER_S}s;") == 2
        # not less: 400 connections are opened in that time, beside other tests
        return conf.replace(f"client_header_timeout {HEADER_S}s;", "client_header_timeout 4s;")

    with serving(tmp_path_factory.mktemp("nginx"), hastily) as running:
        yield running


@contextmanager
def crowd(port: int, count: int, says: bytes) -> Iterator[list[socket.socket]]:
    """Open connections from one address, each of which sends only that.

    They end by reset: else their ports would be in use for a minute, for tests after this one.
    """
    with ExitStack() as stack:
        kept = []
        for _ in range(count):
            sock = stack.enter_context(socket.create_connection((OTHER, port), 5, (CROWD, 0)))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(says)
            kept.append(sock)
        yield kept


def is_ended(sock: socket.socket) -> bool:
    sock.settimeout(0)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("tls", [True, False])
def test_others_are_answered_beside_more_idle_connections_than_nginx_can_have(
    front: Front, tls: bool
) -> None:
    """nginx ends those that have sent nothing when it needs room."""
    with crowd(front.https if tls else front.http, 2000, b"") as kept:
        for _ in range(20):
            assert get(front, "/derp/probe")[0] == 200
            assert get(front, "/generate_204", tls=False)[0] == 204
        assert sum(map(is_ended, kept)) >= 2000 - 512


@pytest.mark.parametrize(("tls", "says"), [(False, SLOW_HEAD), (True, SLOW_HELLO)])
def test_slow_heads_end_in_time_and_others_are_answered_meanwhile(
    front: Front, tls: bool, says: bytes
) -> None:
    with crowd(front.https if tls else front.http, 400, says) as kept:
        assert get(front, "/derp/probe")[0] == 200
        assert not any(map(is_ended, kept[-100:]))
        for _ in range(5):
            kept[-1].sendall(b"x")  # a byte now and then gains no time
            assert get(front, "/derp/probe")[0] == 200
            time.sleep(0.2)
        eventually(lambda: all(map(is_ended, kept)), within_s=8)


def test_nginx_has_room_for_the_slow_heads_of_many_addresses() -> None:
    """While they wait, nginx ends none of them to make room."""
    assert most_of_one_address() * 10 <= ROOM


def test_as_many_slow_heads_as_one_address_can_have(tmp_path: Path) -> None:
    def roomy(conf: str) -> str:
        assert "events {}" in conf
        return conf.replace(
            "events {}", f"worker_rlimit_nofile 65536; events {{ worker_connections {ROOM}; }}"
        )

    most = most_of_one_address()
    with serving(tmp_path, roomy) as running, crowd(running.http, most, SLOW_HEAD) as kept:
        for _ in range(20):
            assert get(running, "/derp/probe")[0] == 200
        assert not is_ended(kept[-1])
