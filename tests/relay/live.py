"""A relay as a process, and blocking clients for it, for tests with real sockets."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.relay import procfs, servers
from relay import client as derp
from relay.core.handshake import ClientInfo, make_private_key

E = TypeVar("E", bound=derp.Event)


class HungUp(Exception):
    """The relay ended the connection."""


class Peer(AbstractContextManager["Peer"]):
    """A DERP client on a blocking socket. `raw` is there for bytes that no client would send."""

    def __init__(self, sock: socket.socket, key: bytes = b"", info: ClientInfo | None = None) -> None:
        self.sock = sock
        self.client = derp.Client(key or make_private_key(), info)
        self._events: deque[derp.Event] = deque()

    @property
    def key(self) -> bytes:
        return self.client.public_key

    def login(self) -> Peer:
        self.client.start(servers.HOST)
        self.flush()
        self.expect(derp.Admitted)
        return self

    def flush(self) -> None:
        self.raw(self.client.outgoing())

    def raw(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError) as e:
            raise HungUp from e

    def send(self, to: bytes, packet: bytes) -> None:
        self.client.send(to, packet)
        self.flush()

    def receive(self, timeout_s: float = 5) -> derp.Event:
        """Return the next event.

        Raises HungUp at the end of the stream, TimeoutError when none comes.
        """
        self.sock.settimeout(timeout_s)
        while not self._events:
            try:
                data = self.sock.recv(65536)
            except (ConnectionResetError, ssl.SSLEOFError, BrokenPipeError) as e:
                raise HungUp from e
            if not data:
                raise HungUp
            self._events.extend(self.client.receive(data))
            self.flush()
        return self._events.popleft()

    def expect(self, kind: type[E], timeout_s: float = 5) -> E:
        """Return the next event of a kind. Others are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            event = self.receive(max(deadline - time.monotonic(), 0.001))
            if isinstance(event, kind):
                return event

    def wait_hangup(self, timeout_s: float = 5) -> None:
        """Read until the relay ends the connection."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self.receive(max(deadline - time.monotonic(), 0.001))
        except HungUp:
            return

    def reset(self) -> None:
        """End the connection with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Live:
    """A running relay. `connect` gives logged-in clients, `open` bare sockets up to TLS."""

    running: servers.Running

    @property
    def pid(self) -> int:
        return self.running.process.pid

    def tcp(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.running.port), timeout=10)

    def open(self, *, small_window: bool = False) -> socket.socket:
        """Open a connection, with TLS if the relay serves it.

        `small_window`: the kernel takes little that is not read.
        """
        sock = socket.socket()
        if small_window:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", self.running.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.wrap(sock)

    def wrap(self, sock: socket.socket) -> socket.socket:
        if self.running.ca is None:
            return sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.running.ca)
        return context.wrap_socket(sock, server_hostname=servers.HOST)

    def connect(
        self, key: bytes = b"", info: ClientInfo | None = None, *, small_window: bool = False
    ) -> Peer:
        return Peer(self.open(small_window=small_window), key, info).login()

    def get(self, path: str) -> str:
        """Return the body of a page that only loopback sees."""
        with self.open() as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {servers.HOST}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        return body.decode()

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics, by name and labels as written there."""
        lines = self.get("/metrics").splitlines()
        return {
            name: float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
        }

    def counted(self, before: dict[str, float], name: str) -> float:
        """Return by how much samples have grown since `before`.

        They are those whose name and labels contain the pattern `name`.
        """
        pattern = re.compile(name)
        return sum(value - before.get(key, 0) for key, value in self.metrics().items() if pattern.search(key))

    def usage(self) -> procfs.Usage:
        return procfs.read(self.pid)

    def signal(self, number: signal.Signals) -> None:
        self.running.process.send_signal(number)

    def log(self) -> str:
        return self.running.log.read_text(errors="replace")

    def assert_undisturbed(self) -> None:
        """Check that it still relays, and that its log holds no exception."""
        with self.connect() as alice, self.connect() as bob:
            alice.send(bob.key, b"still here")
            got = bob.expect(derp.Received)
            assert (got.source, got.packet) == (alice.key, b"still here")
        log = self.log()
        assert not re.search("Traceback|never retrieved|Exception (ignored|in callback)|exception=", log), (
            log[-3000:]
        )
        assert self.running.process.poll() is None


@contextmanager
def relay(folder: Path, *flags: str, tls: bool = True, port: int = 0) -> Iterator[Live]:
    """Run this checkout's relay with `flags`. Its log is checked at the end of the block."""
    with servers.running(servers.relay(*flags), folder, tls=tls, port=port) as running:
        yield Live(running)


@dataclass
class Stream:
    """The result of a steady stream of packets between two clients."""

    sent: int
    received: int
    latencies_s: list[float]

    def p99_s(self) -> float:
        return sorted(self.latencies_s)[int(len(self.latencies_s) * 0.99)]


class Steady:
    """A stream of `rate` packets a second from alice to bob, from threads beside the test.

    `finish` returns the result.
    """

    def __init__(self, alice: Peer, bob: Peer, rate: float = 200) -> None:
        self._alice, self._bob, self._gap = alice, bob, 1 / rate
        self._stop = threading.Event()
        self._sent_all = threading.Event()
        self._stream = Stream(0, 0, [])
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(f,), daemon=True) for f in (self._send, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as e:
            self._errors.append(e)

    def _send(self) -> None:
        while not self._stop.is_set():
            self._alice.send(self._bob.key, struct.pack(">Qd", self._stream.sent, time.perf_counter()))
            self._stream.sent += 1
            time.sleep(self._gap)

    def _receive(self) -> None:
        give_up = float("inf")
        while not (self._sent_all.is_set() and self._stream.received >= self._stream.sent):
            try:
                got = self._bob.expect(derp.Received, 0.05)
            except TimeoutError:
                if self._sent_all.is_set():
                    # A crowd that leaves at once is served first.
                    give_up = min(give_up, time.monotonic() + 20)
                if time.monotonic() > give_up:
                    return
                continue
            number, at = struct.unpack(">Qd", got.packet)
            assert number == self._stream.received, f"packet {number} came as number {self._stream.received}"
            self._stream.latencies_s.append(time.perf_counter() - at)
            self._stream.received += 1

    def finish(self) -> Stream:
        """Stop, and raise the errors of either thread."""
        for event, thread in zip((self._stop, self._sent_all), self._threads, strict=True):
            event.set()
            thread.join(30)
        for error in self._errors:
            raise error
        return self._stream


def eventually(condition: Callable[[], bool], within_s: float = 5) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def read_to_end(sock: socket.socket) -> None:
    """Read until the relay closes or resets the connection, and close it."""
    with suppress(OSError):
        while sock.recv(65536):
            pass
    sock.close()
