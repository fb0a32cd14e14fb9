"""Real servers on loopback for the proof to judge: a relay (ours, or Go's derper) and our own nginx
in front of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.relay.servers import stop
from fleet.shared.parts import deploy_part
from inventory.model import Host, Region
from probe.target import Target
from tests.probe.authority import Issued
from tests.support import debian

DOMAIN = "relay.test"
LOOPBACK = "127.0.0.1"
OURS = (sys.executable, "-m", "relay")
HK1 = Host(name="hk1", domain=DOMAIN, region=Region(id=900, code="hkg", name="Hong Kong"))


async def here(_: str) -> Sequence[str]:
    """Resolve every name to this machine."""
    return [LOOPBACK]


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a port that was free a moment ago."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def program(argv: Sequence[str], log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the block; it is ready when `port` accepts."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2]
        )
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 0.2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        stop(process)


@dataclass(frozen=True)
class Backend:
    """A relay in plain HTTP on loopback, as behind a front."""

    port: int
    stun: int


@contextlib.contextmanager
def backend(command: Sequence[str], folder: Path, *flags: str) -> Iterator[Backend]:
    """Run a relay without a front; flags are derper's."""
    folder.mkdir(parents=True, exist_ok=True)
    port, stun = free_port(), free_port(socket.SOCK_DGRAM)
    argv = [
        *command, "-a", f"{LOOPBACK}:{port}", "-hostname", DOMAIN, "-c", str(folder / "relay.key"),
        "-http-port", "-1",
    ]
    with program([*argv, "-stun", "-stun-port", str(stun), *flags], folder / "relay.log", port):
        yield Backend(port, stun)


UPGRADE = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    "proxy_set_header Connection $derp_connection;"
)


@dataclass(frozen=True)
class Front:
    """The configuration of an nginx in front of a relay; each field is a place where a fault can
    be."""

    chain: Path
    key: Path
    location: str = UPGRADE
    root: str = ""  # the directives of `location /`, instead of proxying
    tls: str = "ssl"
    tls_more: str = ""
    port_80: str = "location = /generate_204 { proxy_pass http://127.0.0.1:BACKEND; }"

    @classmethod
    def of(cls, issued: Issued, **fields: str) -> Front:
        return cls(issued.chain, issued.key, **fields)


@contextlib.contextmanager
def nginx(front: Front, behind: Backend, folder: Path, *also: str) -> Iterator[tuple[int, int]]:
    """Run a real nginx with its own configuration, pid and ports; yield (https port, http port).

    `also`: further addresses to listen on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    https, http = free_port(), free_port()
    inner = front.root or f"proxy_pass http://127.0.0.1:{behind.port}; {front.location}"
    temp = "\n".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
        daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
        {"user root;" if os.geteuid() == 0 else ""}
        events {{ worker_connections 4096; }}
        http {{
          access_log off; ssl_protocols TLSv1.2 TLSv1.3; {temp}
          map $http_upgrade $derp_connection {{ default upgrade; '' close; }}
          server {{
            {"".join(f"listen {each}:{http} default_server;" for each in (LOOPBACK, *also))}
            {front.port_80.replace("BACKEND", str(behind.port))}
            location / {{ return 301 https://$host$request_uri; }}
          }}
          server {{
            {"".join(f"listen {each}:{https} {front.tls} default_server;" for each in (LOOPBACK, *also))}
            {f"ssl_certificate {front.chain}; ssl_certificate_key {front.key};" if front.tls else ""}
            {front.tls_more}
            location / {{ {inner} }}
          }}
        }}
    """)
    with program(
        [
            debian.program("nginx", "nginx"),
            "-c",
            str(folder / "nginx.conf"),
            "-e",
            str(folder / "error.log"),
        ],
        folder / "out.log",
        https,
    ):
        yield https, http


def target(https: int, http: int | None, stun: int | None, **fields: object) -> Target:
    """Return the relay as a target; `fields` add to the usual ones or replace them."""
    usual: dict[str, object] = {
        "name": "hk1",
        "domain": DOMAIN,
        "ipv4": LOOPBACK,
        "expect_admission": "open",
        "deploy": partial(deploy_part, HK1),
        "region_id": 900,
    }
    usual |= {"https_port": https, "http_port": http, "stun_port": stun, "resolve": here}
    return Target(**(usual | fields))  # type: ignore[arg-type]  # fields of any type
