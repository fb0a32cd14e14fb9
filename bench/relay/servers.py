"""The servers under test: how each is started, and when it is ready. Both take the same flags."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.relay import certs

HOST = "derp.bench.test"
ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 15.0


@dataclass(frozen=True)
class Server:
    """A relay program: `argv` is what comes before derper's flags, `flags` what it gets beside them."""

    name: str
    argv: tuple[str, ...]
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


def derper(program: Path) -> Server:
    """The Go relay."""
    return Server("derper", (str(program),))


def relay(*flags: str, name: str = "relay") -> Server:
    """This checkout's relay."""
    return Server(name, (sys.executable, "-m", "relay"), flags, {"PYTHONPATH": str(ROOT)})


@dataclass(frozen=True)
class Running:
    """A server that answers: its process and where the generator finds it."""

    pid: int
    address: str
    stun: str
    ca: Path

    def generator_flags(self) -> list[str]:
        return ["-addr", self.address, "-name", HOST, "-ca", str(self.ca), "-stun", self.stun]


@contextmanager
def running(server: Server, folder: Path, cpu: int) -> Iterator[Running]:
    """Start `server` on one core with TLS and STUN on loopback; ends it on leaving. Its log is `folder`/log."""
    ca = certs.make(folder / "certs", HOST)
    port, stun_port = _free_port(socket.SOCK_STREAM), _free_port(socket.SOCK_DGRAM)
    address = f"127.0.0.1:{port}"
    argv = [*server.argv, "-a", address, "-hostname", HOST, "-certmode", "manual", "-certdir", str(folder / "certs")]
    argv += ["-c", str(folder / "key.json"), "-http-port", "-1", "-stun", "-stun-port", str(stun_port), *server.flags]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), *argv], cwd=folder, env={**os.environ, **server.env}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _await_ready(process, port, ca, folder / "log")
            yield Running(process.pid, address, f"127.0.0.1:{stun_port}", ca)
        finally:
            process.terminate()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _await_ready(process: subprocess.Popen[bytes], port: int, ca: Path, log: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=2) as tcp,
                context.wrap_socket(tcp, server_hostname=HOST) as tls,
            ):
                tls.sendall(f"GET /derp/probe HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                if b" 200 " in tls.recv(4096).split(b"\r\n")[0]:
                    return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)
