"""The rung `admission`: a far host, asked over a real sshd whom its relay can ask."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.report import Report
from fleet.shared.fleet import Fleet
from fleet.shared.prove import climb
from inventory.model import Host, Region, Relay, Site, Ssh
from lab.delaying import delaying
from probe.proof import Proof
from probe.target import Target
from tests.probe.servers import DOMAIN, LOOPBACK
from tests.support.sshd import start_sshd

_PORT = 8080
_REFUSES = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Refuses(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"Allow":false}')
server = HTTPServer(("127.0.0.1", %d), Refuses)
print(flush=True)
server.serve_forever()
"""


@contextmanager
def asked_host(folder: Path, rtt_s: float) -> Iterator[tuple[Fleet, Host]]:
    """Run a host at a distance, with an admission controller on it that refuses everybody."""
    with start_sshd(folder) as sshd, delaying((LOOPBACK, sshd.port), rtt_s=rtt_s) as line:
        controller = subprocess.Popen(
            [*sshd.enter, "python3", "-c", _REFUSES % _PORT],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert controller.stdout is not None and controller.stdout.readline()
            known_hosts = folder / "pinned"
            known_hosts.write_text(f"[{LOOPBACK}]:{line.port} {sshd.host_key}\n")
            host = Host(
                name="relay",
                domain=DOMAIN,
                region=Region(id=901, code="hk", name="Hong Kong"),
                ssh=Ssh(address=LOOPBACK, port=line.port, user="root", key=str(sshd.key)),
                relay=Relay(verify_client_url=f"http://{LOOPBACK}:{_PORT}/verify"),
            )
            site = Site(path=str(folder / "site.yml"), hosts={host.name: host}, known_hosts=str(known_hosts))
            yield Fleet(site, Report()), host
        finally:
            controller.kill()
            controller.wait()


def proof_with_admission(fleet: Fleet, host: Host, far: Target) -> Proof:
    """Return a proof of `far` whose host was asked meanwhile, with the time of both."""
    started = time.perf_counter()
    [proof] = climb(fleet, [host], [far])
    return replace(proof, ms=(time.perf_counter() - started) * 1000)
