"""The servers under test: how each is started, and when it is ready. Both take the same flags."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.relay import certs
from inventory.checkout import CHECKOUT

HOST = "derp.bench.test"
READY_WITHIN_S = 15.0


@dataclass(frozen=True)
class Server:
    """A relay program: `argv` precedes derper's flags, `flags` are added to them.

    With several `workers` (ours only), each one's debug page gets its own port.
    """

    name: str
    argv: tuple[str, ...]
    flags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    workers: int = 1


def derper(program: Path, *flags: str) -> Server:
    """Return the Go relay."""
    return Server("derper", (str(program),), flags)


def relay(*flags: str, name: str = "relay", workers: int = 1, python: str = sys.executable) -> Server:
    """Return this checkout's relay, with this environment's packages."""
    return of_checkout(Server(name, (python, "-m", "relay"), flags, workers=workers), CHECKOUT)


def of_checkout(server: Server, checkout: Path) -> Server:
    """Return `server` with the code of `checkout` and this environment's packages."""
    path = f"{checkout.absolute()}{os.pathsep}{sysconfig.get_path('platlib')}"
    return replace(server, env={**server.env, "PYTHONPATH": path})


def hosts_python() -> str:
    """Return the distribution's Python, on which relays run, if it can load this environment's
    packages; else this one.

    A Python that a version manager built, without the distribution's optimizations, carries a tenth
    to a fifth less.
    """
    version = "import sys; print(*sys.version_info[:2])"
    found = "/usr/bin/python3"
    try:
        theirs = subprocess.run([found, "-c", version], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return sys.executable
    return found if theirs.split() == [str(part) for part in sys.version_info[:2]] else sys.executable


@dataclass(frozen=True)
class Running:
    """A server that answers: its process and the addresses for clients.

    `ca` is None on plain HTTP.
    """

    process: subprocess.Popen[bytes]
    port: int
    stun_port: int
    ca: Path | None
    log: Path
    debug: tuple[str, ...] = ()  # the workers' debug pages, if there are several

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def generator_flags(self) -> list[str]:
        flags = [
            "-addr", self.address, "-name", HOST, "-ca", str(self.ca or ""), "-stun",
            f"127.0.0.1:{self.stun_port}",
        ]
        return [*flags, "-debug", ",".join(self.debug)]


@contextmanager
def running(
    server: Server,
    folder: Path,
    *,
    cpu: int | None = None,
    tls: bool = True,
    port: int = 0,
    ready_s: float = READY_WITHIN_S,
) -> Iterator[Running]:
    """Start `server` on loopback, on one core if `cpu` is given, with STUN; end it on leaving.

    Its files (key, certificates, log) are under `folder`, so that a second start there is the same
    relay again. Raises RuntimeError with the end of its log when it does not answer.
    """
    ca = None
    if tls:
        ca = folder / "certs" / "ca.pem"
        if not ca.exists():
            certs.make(folder / "certs", HOST)
    port, stun_port = port or free_port(socket.SOCK_STREAM), free_port(socket.SOCK_DGRAM)
    argv = [*(["taskset", "-c", str(cpu)] if cpu is not None else []), *server.argv]
    argv += ["-a", f"127.0.0.1:{port}", "-hostname", HOST, "-c", str(folder / "key.json"), "-http-port", "-1"]
    argv += ["-stun", "-stun-port", str(stun_port), *server.flags]
    argv += ["-certmode", "manual", "-certdir", str(folder / "certs")] if tls else []
    debug: tuple[str, ...] = ()
    if server.workers > 1:
        first = free_port(socket.SOCK_STREAM)
        debug = tuple(f"127.0.0.1:{first + n}" for n in range(server.workers))
        argv += ["-workers", str(server.workers), "-metrics-listen", debug[0]]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            argv, cwd=folder, env={**os.environ, **server.env}, stdout=log, stderr=subprocess.STDOUT
        )
    target = Running(process, port, stun_port, ca, folder / "log", debug)
    try:
        _await_ready(target, ready_s)
        yield target
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any], timeout_s: float = 15) -> None:
    """Ask the process to end, and kill it if it does not end in time."""
    process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port(kind: int) -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _await_ready(target: Running, within_s: float) -> None:
    context = ssl.create_default_context(cafile=str(target.ca)) if target.ca else None
    deadline = time.monotonic() + within_s
    while True:
        try:
            with ExitStack() as stack:
                s: socket.socket = stack.enter_context(
                    socket.create_connection(("127.0.0.1", target.port), timeout=2)
                )
                if context is not None:
                    s = stack.enter_context(context.wrap_socket(s, server_hostname=HOST))
                s.sendall(f"GET /derp/probe HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
                if b" 200 " in s.recv(4096).split(b"\r\n")[0]:
                    return
        except OSError:
            pass
        if target.process.poll() is not None or time.monotonic() > deadline:
            log = target.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{target.process.args!r} does not answer:\n{log}")
        time.sleep(0.02)
