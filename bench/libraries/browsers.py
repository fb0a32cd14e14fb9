"""Clients of a running relay: browsers that are idle or exchange packets, and logins."""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import ExitStack

from bench.relay import procfs
from bench.relay.servers import HOST, Running
from bench.relay.upgrade import make_key, pack_upgrade
from relay import client as derp
from relay.core import wire
from relay.core.handshake import ClientInfo, make_private_key, pack_client_info, public_key
from relay.http.websocket import WebSocket

WARM_UP = 100  # connections that are there before memory is read
PACKET = 1200


class Browser:
    """A client that has logged in over WebSocket, on a blocking socket."""

    def __init__(self, relay: Running) -> None:
        self.sock = sock = _connect(relay)
        self._frames = wire.FrameReader()
        self._websocket = WebSocket(client=True)
        private = make_private_key()
        self.key = public_key(private)
        sock.sendall(pack_upgrade(HOST, "/derp", make_key()))
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        greeting = self._receive(head.partition(b"\r\n\r\n")[2])
        self.send(pack_client_info(private, wire.parse_server_key(greeting), ClientInfo()))
        self._receive()

    def send(self, frames: bytes) -> None:
        """Send DERP's frames in one message each."""
        self.sock.sendall(self.pack(frames))

    def pack(self, frames: bytes) -> bytes:
        """Return the message that carries these frames."""
        return self._websocket.pack(frames)

    def wait_for(self, size: int) -> None:
        """Read until so many bytes of DERP have come."""
        while size > 0:
            size -= len(self._websocket.feed(self.sock.recv(1 << 20))[0])

    def _receive(self, data: bytes = b"") -> bytes:
        while True:
            for _, payload in self._frames.receive(self._websocket.feed(data)[0]):
                return payload
            data = self.sock.recv(4096)


def idle_bytes(relay: Running, count: int) -> float:
    """Return the resident bytes that each of `count` idle connections adds to the relay."""
    with ExitStack() as stack:
        for _ in range(WARM_UP):
            stack.enter_context(Browser(relay).sock)
        before = _settled(relay)
        for _ in range(count):
            stack.enter_context(Browser(relay).sock)
        return (_settled(relay) - before) / count


def packet_cpu_us(relay: Running, *, burst: int, count: int) -> float:
    """Return the relay's CPU time for one packet of 1,200 bytes between two clients, in µs.

    `burst` packets are sent in one write, and have arrived before the next ones are sent.
    """
    sender, receiver = Browser(relay), Browser(relay)
    with sender.sock, receiver.sock:
        frame = wire.pack_send_packet(receiver.key, os.urandom(PACKET))
        data = b"".join(sender.pack(frame) for _ in range(burst))
        for timed in (False, True):
            begun = procfs.read(relay.process.pid).cpu_s
            for _ in range(count // burst if timed else 20):
                sender.sock.sendall(data)
                receiver.wait_for(burst * len(frame))
        return (procfs.read(relay.process.pid).cpu_s - begun) / (count // burst * burst) * 1e6


def login_cpu_us(relay: Running, count: int) -> float:
    """Return the relay's CPU time for one ordinary client that connects and is admitted, in µs."""
    begun = procfs.read(relay.process.pid).cpu_s
    for _ in range(count):
        client = derp.Client(make_private_key())
        client.start(HOST)
        with _connect(relay) as sock:
            events: list[derp.Event] = []
            while not any(isinstance(event, derp.Admitted) for event in events):
                sock.sendall(client.outgoing())
                events = client.receive(sock.recv(4096))
    return (procfs.read(relay.process.pid).cpu_s - begun) / count * 1e6


def _connect(relay: Running) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", relay.port), timeout=10)
    if relay.ca is None:
        return sock
    return ssl.create_default_context(cafile=str(relay.ca)).wrap_socket(sock, server_hostname=HOST)


def _settled(relay: Running) -> int:
    time.sleep(0.5)
    return procfs.read(relay.process.pid).rss
