"""`python -m bench.libraries`: wsproto and httpcore beside the relay's own code, in one run."""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from artefacts.release import archive
from bench.environment import environment
from bench.libraries import browsers
from bench.relay import procfs, servers
from inventory.checkout import CHECKOUT

LOCK = Path(__file__).parent / "requirements/libraries.lock"
ADDED = {"wsproto": ("wsproto",), "httpcore": ("httpcore", "anyio", "certifi", "idna", "typing_extensions")}


class Bench:
    """The measurements, each of one side. `quick` divides their work."""

    def __init__(self, quick: int) -> None:
        self._python = str(environment(LOCK) / "bin/python")
        self._quick = quick

    def websocket(self, side: str) -> Iterator[tuple[str, float]]:
        """Frames alone, then a relay: its start, its idle connections, its packets."""
        found = self._work(side, {})
        yield "a 1,200 B message in, alone: CPU µs", found["feed"]
        yield "a 1,200 B message in, 16 at once: CPU µs", found["feed_16"]
        yield "a 1,200 B message out: CPU µs", found["pack"]
        for tls, where in ((False, "behind a front"), (True, "TLS")):
            with self._relay(side, tls=tls) as relay:
                idle = browsers.idle_bytes(relay, 2000 // self._quick)
                yield f"memory per idle connection, {where}: bytes", idle
                for burst in (1, 16):
                    spent = browsers.packet_cpu_us(relay, burst=burst, count=20_000 // self._quick)
                    yield f"a packet relayed, {where}, {burst} at once: CPU µs", spent

    def http(self, side: str) -> Iterator[tuple[str, float]]:
        """A relay's start, one request, and the admission of a client that makes the relay ask."""
        with self._relay(side) as relay:
            usage = procfs.read(relay.process.pid)
            yield "start of a relay: CPU ms", usage.cpu_s * 1000
            yield "memory of a relay that has started: kB", usage.rss / 1000
        with _controller() as url:
            found = self._work(side, {"url": url, "count": 2000 // self._quick})
            yield "a request over a kept connection: CPU µs", found["request"]
            with self._relay(side, "-verify-client-url", url, tls=True) as relay:
                yield "a client admitted, TLS: CPU µs", browsers.login_cpu_us(relay, 1000 // self._quick)

    @contextmanager
    def _relay(self, side: str, *flags: str, tls: bool = False) -> Iterator[servers.Running]:
        argv = (self._python, "-m", "bench.libraries.relay_with", side)
        server = servers.Server(side, argv, flags, env={"PYTHONPATH": str(CHECKOUT)})
        with tempfile.TemporaryDirectory() as folder, servers.running(server, Path(folder), tls=tls) as relay:
            yield relay

    def _work(self, side: str, task: dict[str, object]) -> dict[str, float]:
        argv = [self._python, "-m", "bench.libraries.worker", side]
        given = json.dumps(task)
        done = subprocess.run(argv, input=given, capture_output=True, text=True, cwd=CHECKOUT, check=True)
        return dict(json.loads(done.stdout))


def shipped(library: str) -> tuple[int, int]:
    """Return the bytes of a relay's archive for a host, without the library and with it."""
    folder = next(environment(LOCK).glob("lib/python3*/site-packages"))
    lock = (CHECKOUT / "requirements/relay.lock").read_text()
    locked = {name.replace("-", "_") for name in re.findall(r"^([\w-]+)==", lock, re.M)}
    # No Python above 3.10 needs typing_extensions.
    ours = (locked | {"nacl", "_cffi_backend"}) - {"typing_extensions"}

    def content(names: set[str]) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
        found = {str(path.relative_to(folder)): path for path in files}
        kept = {name: path for name, path in found.items() if re.split("[-./]", name)[0] in names}
        return {name: path.read_bytes() for name, path in kept.items()}

    sources = (CHECKOUT / "relay").rglob("*.py")
    relay = {str(path.relative_to(CHECKOUT)): path.read_bytes() for path in sources}
    return len(archive(relay | content(ours))), len(archive(relay | content(ours | set(ADDED[library]))))


@contextmanager
def _controller() -> Iterator[str]:
    """Run an admission controller that allows everything; the block gets its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"Allow":true}')

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/verify"
        server.shutdown()


def main() -> None:
    """The program: see the module's docstring."""
    description = "wsproto and httpcore beside our own code"
    parser = argparse.ArgumentParser(prog="python -m bench.libraries", description=description)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=sorted(ADDED))
    parser.add_argument("--quick", type=int, default=1, help="divide the work of each measurement by this")
    given = parser.parse_args()
    bench = Bench(given.quick)
    load = f"load average {os.getloadavg()[0]:.1f}"
    subjects: dict[str, Callable[[str], Iterator[tuple[str, float]]]]
    subjects = {"wsproto": bench.websocket, "httpcore": bench.http}
    found: dict[tuple[str, str], dict[str, list[float]]] = {}  # (library, figure) -> side -> values
    for run in range(given.runs):
        for library in [given.only] if given.only else subjects:
            for side in ("ours", library)[:: -1 if run % 2 else 1]:
                for figure, value in subjects[library](side):
                    found.setdefault((library, figure), {}).setdefault(side, []).append(value)
    python = f"python {sys.version.split()[0]}, {os.cpu_count()} cores"
    print(f"Medians of {given.runs} alternating runs; {python}, {load}\n")
    print("| library | figure | ours | library | ratio |\n| --- | --- | --- | --- | --- |")
    for (library, figure), sides in found.items():
        _row(library, figure, statistics.median(sides["ours"]), statistics.median(sides[library]))
    for library in dict.fromkeys(library for library, _ in found):
        _row(library, "archive that travels to a host: kB", *(size / 1000 for size in shipped(library)))


def _row(library: str, figure: str, ours: float, theirs: float) -> None:
    shown = [f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" for value in (ours, theirs)]
    print(f"| {library} | {figure} | {' | '.join(shown)} | {theirs / ours:.2f} |")


if __name__ == "__main__":
    main()
