"""A client site: a network behind its own NAT, with a real tailscaled in it.

tailscaled runs in userspace mode: connections into the tailnet enter by its SOCKS5 port, and those
from it go to loopback in the site's namespace.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import netns
from lab.errors import LabError
from lab.headscale import LabHeadscale
from lab.machine import Machine
from lab.process import execute, wait_for
from lab.topology import SiteSpec

SOCKS_PORT, FILE_PORT = 1055, 8000
# relative to the site's folder: the name of a unix socket may have 107 bytes at most
SOCKET = "tailscaled.sock"
_PONG = re.compile(r"pong from \S+ \(\S+\) via (?P<via>\S+) in (?P<ms>[0-9.]+)(?P<unit>µs|ms|s)")


@dataclass(frozen=True)
class Pong:
    """An answer to a ping.

    `relay` is the code of the region that it passed, "" for a direct path.
    """

    relay: str
    ms: float


@dataclass(frozen=True)
class Transfer:
    """A file that went from one site to another."""

    bytes: int
    seconds: float
    sha256_sent: str
    sha256_received: str
    relay: str  # the code of the region that it passed, "" for a direct path

    @property
    def ok(self) -> bool:
        """Whether every byte arrived."""
        return self.sha256_sent == self.sha256_received


@dataclass(frozen=True)
class LabClient(Machine):
    """The tailscale client of one site.

    `programs` holds `tailscale` and `tailscaled`, `ca` its trusted roots.
    """

    spec: SiteSpec
    etc: Path
    ca: Path
    programs: Path
    headscale: LabHeadscale

    @property
    def running(self) -> bool:
        """Whether tailscaled runs."""
        return self.processes.pid(self._daemon) is not None

    def prepare(self) -> None:
        """Make the site's network and folder."""
        netns.add_site(self.topology, self.spec)
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start tailscaled unless it runs already."""
        if self.running:
            return
        argv = [
            str(self.programs / "tailscaled"), "--tun=userspace-networking", "--statedir=.",
            f"--socket={SOCKET}", "--port=0", f"--socks5-server=127.0.0.1:{SOCKS_PORT}",
            "--no-logs-no-support",
        ]  # fmt: skip
        self.processes.start(
            self._daemon,
            [*self.enter(), *argv],
            environment={**self._environment, "TS_LOGS_DIR": str(self.folder)},
            cwd=self.folder,
        )
        wait_for(
            self._answers,
            timeout_s=15,
            what=f"tailscaled of {self.name} did not come up",
            why=lambda: self.processes.tail(self._daemon),
        )

    def stop(self) -> None:
        """Stop tailscaled; its state stays."""
        self.processes.stop(self._daemon)

    def join(self) -> None:
        """Log in to the lab's headscale, as a node with the site's name; start tailscaled if need
        be."""
        self.start()
        self.tailscale(
            "up", f"--login-server={self.headscale.url}", f"--auth-key={self.headscale.preauth_key()}",
            f"--hostname={self.name}", "--accept-dns=false", "--timeout=30s", timeout_s=45,
        )  # fmt: skip

    def leave(self) -> None:
        """Log out, stop, and forget everything."""
        if self.running:
            self.tailscale("logout", check=False)
            self.stop()
        for path in sorted(self.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()

    def tailscale(
        self, *arguments: str, check: bool = True, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run the `tailscale` command line on this site."""
        return self.run(
            [str(self.programs / "tailscale"), f"--socket={SOCKET}", *arguments],
            check=check,
            timeout_s=timeout_s,
        )

    def status(self) -> dict[str, Any]:
        """Return the decoded output of `tailscale status --json`."""
        found: dict[str, Any] = json.loads(self.tailscale("status", "--json").stdout)
        return found

    @property
    def ipv4(self) -> str:
        """Its address in the tailnet.

        Addresses are given in the order of joining: never guess one.
        """
        return self.tailscale("ip", "-4").stdout.strip()

    @property
    def home(self) -> str:
        """The code of the region that is its home, "" while it has none."""
        return str(self.status()["Self"]["Relay"])

    def wait_for_home(self, code: str, *, timeout_s: float = 30) -> None:
        """Wait until the region of this code is its home.

        Raises LabError with its health messages.
        """
        wait_for(
            lambda: self.home == code,
            timeout_s=timeout_s,
            what=f"{self.name} did not take {code} for its home",
            why=self._health,
        )

    def move_home(self, number: int, *, timeout_s: float = 120) -> None:
        """Make the region of this number its home, as soon as that is in its map.

        A node goes only to a region that it has measured, and only while its login server answers;
        else it looks again after half a minute, or when it is idle not at all. So it is told to
        measure until it has gone there. Raises LabError.
        """
        found = wait_for(
            lambda: self.regions().get(number),
            timeout_s=timeout_s,
            what=f"{self.name} does not hear of region {number}",
        )
        self.tailscale("debug", "force-prefer-derp", str(number))

        def is_there() -> bool:
            self.tailscale("debug", "restun")
            return self.home == found

        what = f"{self.name} did not take {found} for its home"
        wait_for(is_there, timeout_s=timeout_s, what=what, why=self._health)

    def regions(self) -> dict[int, str]:
        """Return the regions of its current map: id -> code."""
        return {number: region["RegionCode"] for number, region in self.derp_map().items()}

    def derp_map(self) -> dict[int, dict[str, Any]]:
        """Return the regions of its current map by id, as tailcfg.DERPRegion."""
        regions = json.loads(self.tailscale("debug", "derp-map").stdout)["Regions"]
        return {int(number): region for number, region in regions.items()}

    def ping(self, other: LabClient, *, timeout_s: float = 20) -> Pong:
        """Send a disco ping until it is answered; the first often is not, while the peer still
        dials its relay."""
        argv = ("ping", "--until-direct=false", "-c", "1", "--timeout", "1s", other.ipv4)

        def answer() -> Pong | None:
            found = _PONG.search(self.tailscale(*argv, check=False).stdout)
            if found is None:
                return None
            relay = (
                found["via"].removeprefix("DERP(").removesuffix(")")
                if found["via"].startswith("DERP(")
                else ""
            )
            return Pong(relay, float(found["ms"]) * {"µs": 0.001, "ms": 1, "s": 1000}[found["unit"]])

        return wait_for(
            answer,
            timeout_s=timeout_s,
            what=f"{self.name} gets no answer from {other.name}",
            why=self._health,
        )

    def send(self, other: LabClient, nbytes: int, *, timeout_s: float = 120) -> Transfer:
        """Send random bytes to another site through the tailnet, and compare them on arrival.

        Raises LabError when none arrive.
        """
        served = self.folder / "www"
        served.mkdir(exist_ok=True)
        data = os.urandom(nbytes)
        (served / "data").write_bytes(data)
        server = f"{self.name}-files"
        self.processes.start(
            server,
            [
                *self.enter(), sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory",
                str(served), str(FILE_PORT),
            ],
        )
        try:
            ready = [
                "curl", "--silent", "--fail", "--output", "/dev/null", "--head",
                f"http://127.0.0.1:{FILE_PORT}/data",
            ]
            wait_for(
                lambda: self.run(ready, check=False).returncode == 0,
                timeout_s=10,
                what=f"{server} did not come up",
            )
            received, began = other.folder / "received", time.monotonic()
            fetch = [
                "curl", "--silent", "--show-error", "--fail", "--max-time", f"{timeout_s:g}",
                "--socks5-hostname", f"127.0.0.1:{SOCKS_PORT}",
            ]
            other.run(
                [*fetch, "--output", str(received), f"http://{self.ipv4}:{FILE_PORT}/data"],
                timeout_s=timeout_s + 5,
            )
            seconds = time.monotonic() - began
            arrived = hashlib.sha256(received.read_bytes()).hexdigest()
            received.unlink()
        finally:
            self.processes.stop(server)
        return Transfer(nbytes, seconds, hashlib.sha256(data).hexdigest(), arrived, other.relay_to(self))

    def relay_to(self, other: LabClient) -> str:
        """Return the code of the region that packets for another site pass now, "" when they go
        directly."""
        peers = self.status()["Peer"].values()
        peer = next((p for p in peers if other.ipv4 in p["TailscaleIPs"]), None)
        if peer is None:
            raise LabError(f"{self.name} does not know {other.name}", next="join both")
        return "" if peer["CurAddr"] else str(peer["Relay"])

    def run(
        self, argv: Sequence[str], *, input: str | None = None, timeout_s: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the site's network, in the site's folder.

        With `check`, raises LabError when it fails.
        """
        return execute(
            [*self.enter(), *argv],
            input=input,
            timeout_s=timeout_s,
            check=check,
            what=f"{Path(argv[0]).name} failed on {self.name}",
            environment=self._environment,
            cwd=self.folder,
        )

    def enter(self) -> list[str]:
        """Return an argv prefix that runs a command on the site's network."""
        return netns.inside(self.topology.namespace_of(self.name), self.etc)

    @property
    def _daemon(self) -> str:
        return f"{self.name}-tailscaled"

    @property
    def _trust(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.ca), "SSL_CERT_DIR": "/nonexistent"}

    @property
    def _environment(self) -> dict[str, str]:
        """This machine's environment without its proxies: a site has no way to them."""
        return {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        } | self._trust

    def _answers(self) -> bool:
        query = ("status", "--json")
        return (self.folder / SOCKET).exists() and self.tailscale(*query, check=False).returncode == 0

    def _health(self) -> str:
        lines = self.status().get("Health") or []
        return "; ".join(str(line) for line in lines)
