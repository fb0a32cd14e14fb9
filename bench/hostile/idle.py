"""Idle connections of one address to a real nginx with our settings, and the answers to others."""

from __future__ import annotations

import multiprocessing
import resource
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

from tests.roles.test_nginx_crowded import ROOM
from tests.roles.test_nginx_live import DOMAIN, Front, serving

CROWD = "127.0.0.2"
ROUNDS = 100
_NO_PORT_YET = 24  # IP_BIND_ADDRESS_NO_PORT: the port has to be free for this one destination only


@dataclass(frozen=True)
class Answers:
    """The times of others' requests over new TLS connections."""

    median_ms: float
    worst_ms: float


def answers_beside_idle(folder: Path, count: int) -> Answers:
    """Open `count` connections from one address, and ask from another meanwhile.

    It goes without the firewall, which lets one address have fewer.
    """
    folder.mkdir()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    def roomy(conf: str) -> str:
        return conf.replace(
            "events {}", f"worker_rlimit_nofile {most}; events {{ worker_connections {ROOM}; }}"
        )

    with serving(folder, roomy) as front, _idle((front.https, front.http), count):
        times = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            _ask(front)
            times.append((time.perf_counter() - started) * 1000)
    return Answers(statistics.median(times), max(times))


def _ask(front: Front) -> None:
    request = f"GET /derp/probe HTTP/1.1\r\nHost: {DOMAIN}\r\n\r\n".encode()
    with (
        socket.create_connection(("127.0.0.1", front.https), 5) as plain,
        front.trust.wrap_socket(plain, server_hostname=DOMAIN) as sock,
    ):
        sock.sendall(request)
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


@contextmanager
def _idle(ports: tuple[int, int], count: int) -> Iterator[None]:
    """Hold connections, each half by a process of its own: one may not have so many files."""
    held = multiprocessing.Barrier(len(ports) + 1)
    halves = [
        multiprocessing.Process(target=_hold, args=(port, count // len(ports), held)) for port in ports
    ]
    for half in halves:
        half.start()
    try:
        held.wait(120)
        yield
    finally:
        for half in halves:
            half.terminate()
            half.join()


def _hold(port: int, count: int, held: Barrier) -> None:
    """Hold so many connections until this process is ended, which resets them."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kept = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_IP, _NO_PORT_YET, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind((CROWD, 0))
        sock.connect(("127.0.0.1", port))
        kept.append(sock)
    held.wait()
    time.sleep(600)
