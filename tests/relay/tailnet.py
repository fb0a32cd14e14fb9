"""Two real tailscaled that can meet only through the relay under test, headscale, and derpprobe.

Three network namespaces without names: the relay's (`srv`) has a link to each node's, and does not
forward. They and all processes in them end with the test process, however it ends, and leave
nothing on the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from artefacts import go
from bench.relay import certs, servers
from inventory.checkout import CACHE
from lab.programs import DERPER, TAILNET

ADDRESS = "10.99.0.1"
ADDRESS_6 = "fd99::1"
HEADSCALE_URL = f"http://{ADDRESS}:8080"
NODES = ("a", "b")


@dataclass(frozen=True)
class Programs:
    """Where the Go programs are."""

    headscale: Path
    tailscale: Path
    tailscaled: Path
    derpprobe: Path


def build() -> Programs:
    """Build all of them, once, from the lab's sums."""
    net, derp = (go.build(source, cache=CACHE, progress=print) for source in (TAILNET, DERPER))
    return Programs(net / "headscale", net / "tailscale", net / "tailscaled", derp / "derpprobe")


@dataclass
class Namespaces:
    """The three namespaces, each held by a process."""

    folder: Path
    holders: dict[str, int] = field(default_factory=dict)

    def inside(self, name: str) -> list[str]:
        """Return an argv prefix for a process of that namespace.

        It ends with the test process. Its working directory is /.
        """
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(self.holders[name]), "-n", "-m"]

    def run(self, name: str, *argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside(name), *argv], capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def must(self, name: str, *argv: str, timeout_s: float = 60) -> str:
        done = self.run(name, *argv, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr or done.stdout}"
        return done.stdout


@contextmanager
def namespaces(folder: Path) -> Iterator[Namespaces]:
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {servers.HOST}\n")
    # One that refuses at once; the machine's own is out of reach.
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    hold = (
        f"mount --bind {folder}/hosts /etc/hosts; mount --bind {folder}/resolv.conf /etc/resolv.conf; "
        "echo up; exec sleep infinity"
    )
    spaces = Namespaces(folder)
    with ExitStack() as stack:
        for name in ("srv", *NODES):
            holder = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "sh", "-c", hold],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(servers.stop, holder)
            assert holder.stdout is not None and holder.stdout.readline() == "up\n"
            holder.stdout.close()
            spaces.holders[name] = holder.pid
            spaces.must(name, "ip", "link", "set", "lo", "up")
        spaces.must("srv", "ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        spaces.must("srv", "ip", "address", "add", f"{ADDRESS_6}/128", "dev", "lo", "nodad")
        for n, name in enumerate(NODES, start=1):
            peer = str(spaces.holders[name])
            spaces.must(
                "srv", "ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns",
                peer,
            )
            for where, device, last in (("srv", f"to-{name}", 1), (name, "eth0", 2)):
                spaces.must(where, "ip", "address", "add", f"10.99.{n}.{last}/24", "dev", device)
                spaces.must(where, "ip", "link", "set", device, "up")
            spaces.must(name, "ip", "route", "add", "default", "via", f"10.99.{n}.1")
        yield spaces


@dataclass
class Tailnet:
    """headscale, the relay and, once `join` was called, nodes a and b."""

    spaces: Namespaces
    programs: Programs
    server: servers.Server
    stack: ExitStack
    relay: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.spaces.folder

    def start_relay(self, *flags: str) -> None:
        """Start the relay on 443 and 3478 of srv, on every address."""
        argv = [
            *self.server.argv, "-a", ":443", "-hostname", servers.HOST, "-certmode", "manual", "-certdir",
            str(self.folder / "certs"),
        ]
        argv += [
            "-c", str(self.folder / "relay.json"), "-http-port", "80", "-stun", "-stun-port", "3478",
            *self.server.flags, *flags,
        ]
        self.relay = self.start("srv", "relay", argv, self.server.env)
        probe = ("curl", "-fsS", "-m1", "--cacert", str(self.ca), f"https://{servers.HOST}/derp/probe")
        self._await(lambda: self.spaces.run("srv", *probe).returncode == 0, "relay")

    def stop_relay(self, *, kill: bool = False) -> None:
        assert self.relay is not None
        if kill:
            self.relay.kill()
        servers.stop(self.relay)

    @property
    def ca(self) -> Path:
        return self.folder / "certs" / "ca.pem"

    def start_headscale(self) -> None:
        home = self.folder / "hs"
        home.mkdir()
        (home / "derp.yaml").write_text(yaml.safe_dump(derp_map()))
        (home / "config.yaml").write_text(json.dumps(_headscale_config(home)))
        self.start(
            "srv", "headscale", [str(self.programs.headscale), "-c", str(home / "config.yaml"), "serve"]
        )
        self._await(
            lambda: self.spaces.run("srv", "curl", "-fsS", "-m1", f"{HEADSCALE_URL}/health").returncode == 0,
            "headscale",
        )

    def headscale(self, *argv: str) -> str:
        return self.spaces.must(
            "srv", str(self.programs.headscale), "-c", str(self.folder / "hs" / "config.yaml"), *argv
        )

    def join(self) -> None:
        """Log both nodes in."""
        self.headscale("users", "create", "lab", "-o", "json")
        key = json.loads(
            self.headscale("preauthkeys", "create", "-u", "1", "--reusable", "-e", "1h", "-o", "json")
        )["key"]
        for name in NODES:
            state = self.folder / name
            argv = [
                str(self.programs.tailscaled),
                "--tun=userspace-networking",
                f"--statedir={state}",
                f"--socket={self.socket(name)}",
            ]
            argv += ["--port=0", "--socks5-server=127.0.0.1:1055", "--no-logs-no-support"]
            self.start(name, f"tailscaled-{name}", argv, {**self.trust(), "TS_LOGS_DIR": str(state)})
        for name in NODES:
            self._await(self.socket(name).exists, f"tailscaled-{name}")
            self.must(
                name,
                "up",
                f"--login-server={HEADSCALE_URL}",
                f"--auth-key={key}",
                f"--hostname=node-{name}",
                "--accept-dns=false",
            )

    def socket(self, node: str) -> Path:
        return self.folder / f"{node}.sock"

    def tailscale(self, node: str, *argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        trust = [f"{k}={v}" for k, v in self.trust().items()]
        call = ("env", *trust, str(self.programs.tailscale), f"--socket={self.socket(node)}", *argv)
        return self.spaces.run(node, *call, timeout_s=timeout_s)

    def must(self, node: str, *argv: str) -> str:
        done = self.tailscale(node, *argv)
        assert done.returncode == 0, (
            f"tailscale {' '.join(argv)}: {done.stderr or done.stdout}\n{self.log('relay')[-2000:]}"
        )
        return done.stdout

    def reach(self, node: str, other: str, within_s: float) -> float:
        """Return the seconds until `other` answers a ping through the relay."""
        began = time.monotonic()
        while True:
            done = self.tailscale(
                node, "ping", "--until-direct=false", "-c", "1", "--timeout", "1s", f"node-{other}"
            )
            if "via DERP(lab1)" in done.stdout:
                return time.monotonic() - began
            waited = time.monotonic() - began
            assert waited < within_s, (
                f"no pong after {waited:.1f} s: {done.stdout} {done.stderr}\n{self.log('relay')[-2000:]}"
            )

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def trust(self) -> dict[str, str]:
        """Return the environment in which Go programs trust the lab's CA and no other."""
        return {"SSL_CERT_FILE": str(self.ca), "SSL_CERT_DIR": "/nonexistent"}

    def start(
        self, where: str, name: str, argv: Sequence[str], env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with this tailnet. `log(name)` returns its output."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.spaces.inside(where), *argv], env={**os.environ, **(env or {})}, stdout=log, stderr=log
            )
        self.stack.callback(servers.stop, process)
        return process

    def _await(self, ready: Any, name: str) -> None:
        deadline = time.monotonic() + 20
        while not ready():
            assert time.monotonic() < deadline, f"{name} does not come up:\n{self.log(name)[-2000:]}"
            time.sleep(0.05)


@contextmanager
def tailnet(folder: Path, programs: Programs, server: servers.Server) -> Iterator[Tailnet]:
    """Make namespaces and certificates; tests start programs in them.

    `folder` must be short: sockets are in it.
    """
    certs.make(folder / "certs", servers.HOST)
    with ExitStack() as stack:
        spaces = stack.enter_context(namespaces(folder))
        yield Tailnet(spaces, programs, server, stack)


def derp_map() -> dict[str, Any]:
    """Return the region, in headscale's spelling."""
    node = {
        "name": "900a",
        "regionid": 900,
        "hostname": servers.HOST,
        "ipv4": ADDRESS,
        "ipv6": "none",
        "stunport": 3478,
        "derpport": 443,
    }
    region = {"regionid": 900, "regioncode": "lab1", "regionname": "Lab one", "nodes": [node]}
    return {"regions": {900: region}}


def go_derp_map() -> dict[str, Any]:
    """Return the region with Go's field names, as derpprobe reads it; with IPv6."""
    node = {"Name": "900a", "RegionID": 900, "HostName": servers.HOST, "IPv4": ADDRESS, "IPv6": ADDRESS_6}
    return {
        "Regions": {"900": {"RegionID": 900, "RegionCode": "lab1", "RegionName": "Lab one", "Nodes": [node]}}
    }


def _headscale_config(home: Path) -> dict[str, Any]:
    return {
        "server_url": HEADSCALE_URL,
        "listen_addr": f"{ADDRESS}:8080",
        "metrics_listen_addr": "127.0.0.1:9090",
        "grpc_listen_addr": "127.0.0.1:50443",
        "noise": {"private_key_path": str(home / "noise.key")},
        "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48"},
        "database": {"type": "sqlite", "sqlite": {"path": str(home / "db.sqlite")}},
        "derp": {
            "server": {"enabled": False},
            "urls": [],
            "paths": [str(home / "derp.yaml")],
            "auto_update_enabled": False,
        },
        "dns": {
            "magic_dns": False,
            "base_domain": "lab.internal",
            "override_local_dns": False,
            "nameservers": {"global": []},
        },
        "unix_socket": str(home / "hs.sock"),
        "disable_check_updates": True,
        "policy": {"mode": "file", "path": ""},
        "log": {"level": "info"},
        "tuning": {"batch_change_delay": "50ms", "node_store_batch_timeout": "20ms"},
    }


def needed() -> str:
    """Return the name of a thing that is missing here for these tests, or ""."""
    missing = [name for name in ("ip", "nsenter", "setpriv", "unshare", "curl") if shutil.which(name) is None]
    return "root" if os.geteuid() != 0 else ", ".join(missing)
