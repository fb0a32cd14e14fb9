"""STUN answers only while the relay's own front leads clients to this very relay.

Real processes, and a TLS front of the tests' own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bench.relay import certs, servers
from relay.core import stun
from relay.frontcheck import FrontAddress, check_front
from tests.relay.live import Live, eventually, relay


def answers_stun(live: Live) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.3)
        sock.connect(("127.0.0.1", live.running.stun_port))
        sock.send(stun.pack_request(os.urandom(stun.TXID_LEN)))
        with suppress(TimeoutError, ConnectionRefusedError):
            return bool(sock.recv(1500))
    return False


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def tls_front(port: int, backend: int, certificates: Path, host: str = servers.HOST) -> Iterator[None]:
    """Serve as nginx would: TLS on `port`, plain to `backend`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{host}.crt", certificates / f"{host}.key")
    listener = socket.create_server(("127.0.0.1", port))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), ExitStack() as stack:
                outer = stack.enter_context(context.wrap_socket(stack.enter_context(raw), server_side=True))
                inner = stack.enter_context(socket.create_connection(("127.0.0.1", backend), timeout=5))
                back = threading.Thread(target=_copy, args=(inner, outer))
                back.start()
                _copy(outer, inner)
                back.join()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.fixture
def port() -> int:
    return servers.free_port(socket.SOCK_STREAM)


@pytest.fixture
def live(tmp_path: Path, port: int) -> Iterator[Live]:
    """Run a plain relay that knows where its front will be."""
    with relay(tmp_path, "-front-check", f"127.0.0.1:{port}", tls=False) as running:
        yield running


def test_silent_until_there_is_a_front_and_again_without_it(live: Live, port: int, tmp_path: Path) -> None:
    certs.make(tmp_path / "certs", servers.HOST)
    eventually(lambda: "STUN is silent" in live.log())
    assert not answers_stun(live)
    with tls_front(port, live.running.port, tmp_path / "certs"):
        eventually(lambda: answers_stun(live), 3)
        assert live.metrics()["relay_front_ok"] == 1
    eventually(lambda: live.metrics()["relay_front_ok"] == 0, 15)
    assert not answers_stun(live)
    assert live.metrics()["relay_stun_silenced"] >= 2
    assert live.log().count("STUN is silent") == 2


def test_another_relay_behind_the_front(live: Live, port: int, tmp_path: Path) -> None:
    certs.make(tmp_path / "certs", servers.HOST)
    (tmp_path / "other").mkdir()
    with (
        relay(tmp_path / "other", tls=False) as other,
        tls_front(port, other.running.port, tmp_path / "certs"),
    ):
        time.sleep(1.2)
        assert not answers_stun(live)
        asked = FrontAddress("127.0.0.1", port, servers.HOST, bytes(32))
        assert asyncio.run(check_front(asked)) == "another relay is behind it"


def test_a_front_with_a_certificate_for_another_name(live: Live, port: int, tmp_path: Path) -> None:
    certs.make(tmp_path / "certs", "other.example")
    with tls_front(port, live.running.port, tmp_path / "certs", "other.example"):
        time.sleep(1.2)
        assert not answers_stun(live)


@pytest.mark.parametrize("begin_days", [-40, 1])
def test_a_certificate_that_is_over_or_not_begun(
    live: Live, port: int, tmp_path: Path, begin_days: int
) -> None:
    certs.make(tmp_path / "certs", servers.HOST, begin_days=begin_days)
    with tls_front(port, live.running.port, tmp_path / "certs"):
        time.sleep(1.2)
        assert not answers_stun(live)


def test_a_relay_without_a_front_checks_itself(tmp_path: Path, port: int) -> None:
    with relay(tmp_path, "-front-check", f"127.0.0.1:{port}", port=port) as live:
        eventually(lambda: answers_stun(live), 2)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        b"gibberish\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n\x01\0",
    ],
)
def test_what_else_a_front_may_say(port: int, tmp_path: Path, said: bytes) -> None:
    certs.make(tmp_path, servers.HOST)
    with socket.create_server(("127.0.0.1", 0)) as backend:

        def serve() -> None:
            inner, _ = backend.accept()
            with inner:
                inner.recv(65536)
                inner.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with tls_front(port, backend.getsockname()[1], tmp_path):
            said = asyncio.run(check_front(FrontAddress("127.0.0.1", port, servers.HOST, bytes(32))))
            assert said not in ("", "another relay is behind it")
        thread.join()


def test_a_connection_that_hangs_does_not_hide_a_front_that_works(
    live: Live, port: int, tmp_path: Path
) -> None:
    """nginx in its former role hands the check to the relay in a way that it no longer reads."""
    certs.make(tmp_path / "certs", servers.HOST)
    with socket.create_server(("127.0.0.1", port)) as former:
        former.settimeout(5)
        hanging, _ = former.accept()
    with hanging, tls_front(port, live.running.port, tmp_path / "certs"):
        eventually(lambda: answers_stun(live), 3)


def test_a_front_that_only_accepts(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.frontcheck.LIMIT_S", 0.1)
    with socket.create_server(("127.0.0.1", port)):
        assert (
            asyncio.run(check_front(FrontAddress("127.0.0.1", port, servers.HOST, bytes(32))))
            == "no answer within 0.1 s"
        )
