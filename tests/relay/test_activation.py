"""The relay under a service manager: sockets handed over, notices, watchdog, drain and restart.

Real processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from inventory.checkout import CHECKOUT
from relay import client as derp
from relay.core.wire import ProtocolError
from tests.relay.live import HungUp, Peer

TRAMPOLINE = """
import os, sys
fds = [int(fd) for fd in sys.argv[1].split(",")]
high = [os.dup2(fd, 200 + n) for n, fd in enumerate(fds)]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "relay", *sys.argv[2:]])
"""


class Manager:
    """systemd's part for one service, with its sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tcp = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.process: subprocess.Popen[bytes] | None = None
        self.heard: list[str] = []

    @property
    def port(self) -> int:
        return int(self.tcp.getsockname()[1])

    def start(self, *flags: str, watchdog_s: float = 0) -> None:
        fds = [self.tcp.fileno(), self.udp.fileno()]
        environ = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "LISTEN_FDS": "2",
        }
        environ |= {"LISTEN_FDNAMES": "main:stun"}
        if watchdog_s:
            environ["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        argv = [
            "-a", f"127.0.0.1:{self.port}", "-stun-port", str(self.udp.getsockname()[1]), "-c", "key",
            "-drain", "1s", *flags,
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", TRAMPOLINE, ",".join(map(str, fds)), *argv],
                cwd=self.folder, env=environ, pass_fds=fds, stdout=log, stderr=log,
            )  # fmt: skip

    def hear(self, wanted: str, within_s: float = 10) -> float:
        """Wait for a notification. Return the seconds that it took."""
        began = time.monotonic()
        self.notify.settimeout(0.1)
        while not any(line.startswith(wanted) for text in self.heard for line in text.splitlines()):
            assert time.monotonic() - began < within_s, (
                f"no {wanted}, but {self.heard}\n{(self.folder / 'log').read_text()}"
            )
            with contextlib.suppress(TimeoutError, socket.timeout):
                self.heard.append(self.notify.recv(4096).decode())
        return time.monotonic() - began

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)

    def connect(self) -> Peer:
        return Peer(socket.create_connection(("127.0.0.1", self.port), timeout=10))

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for sock in (self.tcp, self.udp, self.notify):
            sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("workers", [(), ("-workers", "2")], ids=["one", "workers"])
def test_a_life_as_systemd_sees_it(manager: Manager, workers: tuple[str, ...]) -> None:
    manager.start(*workers, watchdog_s=1)
    manager.hear("READY=1")
    with manager.connect() as a, manager.connect() as b:
        a.login()
        b.login()
        time.sleep(0.2)  # until workers have announced it to each other
        a.send(b.key, b"hello")
        assert b.expect(derp.Received).packet == b"hello"
        manager.heard.clear()
        manager.hear("WATCHDOG=1", 3)
        assert manager.process is not None
        manager.process.send_signal(signal.SIGTERM)
        manager.hear("STOPPING=1")
        assert isinstance(a.expect(derp.Restarting), derp.Restarting)
        a.wait_hangup(5)
    assert manager.process.wait(15) == 0
    assert "Traceback" not in (manager.folder / "log").read_text()


def test_a_reload_is_reported_from_begin_to_end(manager: Manager) -> None:
    manager.start()
    manager.hear("READY=1")
    manager.heard.clear()
    assert manager.process is not None
    manager.process.send_signal(signal.SIGHUP)
    manager.hear("RELOADING=1")
    manager.hear("MONOTONIC_USEC=")
    manager.hear("READY=1")
    assert manager.stop() == 0


def test_a_restart_refuses_no_connection(manager: Manager) -> None:
    """Clients that connect meanwhile wait in the socket's queue for the relay's next process."""
    manager.start()
    manager.hear("READY=1")
    with manager.connect() as before:
        before.login()
        assert manager.stop() == 0
        with pytest.raises((HungUp, ProtocolError)):
            while True:
                before.receive()
    early = [manager.connect() for _ in range(20)]
    manager.start()
    for peer in early:
        with peer:
            peer.login()
            assert peer.client.server_key == before.client.server_key
    assert manager.stop() == 0


def test_stun_answers_on_the_socket_that_was_handed_over(manager: Manager) -> None:
    from relay.core import stun

    manager.start()
    manager.hear("READY=1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        s.sendto(stun.pack_request(b"0123456789ab"), manager.udp.getsockname())
        assert stun.parse_response(s.recv(1500), b"0123456789ab")[1] == s.getsockname()[1]
