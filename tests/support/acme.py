"""A real ACME server on loopback: Pebble, with its own DNS that answers 127.0.0.1 for
every name."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

from artefacts import go
from inventory.checkout import CACHE
from lab.acme import LIFETIMES_S, NO_ACCOUNTS, SHORT_LIVED_S, profiles
from lab.certificates import make_server_certificate
from lab.programs import PEBBLE


@dataclass(frozen=True)
class Pebble:
    """A running Pebble.

    `url`: its directory. `ca`: verifies its own https. `http_port`: where it fetches challenges.
    `management`: the URL of its operator's side.
    """

    url: str
    ca: Path
    http_port: int
    management: str

    def suggest(self, chain: str, *, start: datetime, end: datetime) -> None:
        """Let it suggest that a certificate of its own be renewed between two times (RFC 9773)."""
        window = {"suggestedWindow": {"start": start.isoformat(), "end": end.isoformat()}}
        body = {"certificate": chain, "ariResponse": json.dumps(window)}
        request = urllib.request.Request(f"{self.management}/set-renewal-info/", json.dumps(body).encode())
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(request, timeout=10, context=context):
            pass


def free_ports(count: int) -> list[int]:
    """Return TCP ports of loopback that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return numbers


@contextmanager
def pebble(
    folder: Path, *, moody: bool = False, accounts: Mapping[str, str] = NO_ACCOUNTS
) -> Iterator[Pebble]:
    """Run one in `folder`.

    `moody`: it refuses some nonces and takes its time, to test a client's retries.
    `accounts`: the external accounts without which it takes no client: key id to HMAC key.
    """
    built = go.build(PEBBLE, cache=CACHE, progress=print)
    listen, management, http, dns, dns_management = free_ports(5)
    authority, certificate, key = make_server_certificate("localhost", IPv4Address("127.0.0.1"))
    for name, content in (("ca.pem", authority), ("server.pem", certificate), ("server.key", key)):
        (folder / name).write_bytes(content)
    settings = {
        "listenAddress": f"127.0.0.1:{listen}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "server.pem"),
        "privateKey": str(folder / "server.key"),
        "httpPort": http,
        "tlsPort": 1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": bool(accounts),
        "externalAccountMACKeys": dict(accounts),
        "keyAlgorithm": "ecdsa",
        "profiles": profiles({**LIFETIMES_S, **SHORT_LIVED_S}),
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    calm = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    tried = {"PEBBLE_VA_SLEEPTIME": "2", "PEBBLE_WFE_NONCEREJECT": "15", "PEBBLE_AUTHZREUSE": "0"}
    off = [word for name in ("http01", "https01", "tlsalpn01", "doh") for word in (f"-{name}", "")]
    names = [
        str(built / "pebble-challtestsrv"), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
        "-dnsserver", f"127.0.0.1:{dns}", *off,
    ]
    programs = [
        [*names, "-management", f"127.0.0.1:{dns_management}"],
        [str(built / "pebble"), "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"],
    ]
    processes: list[subprocess.Popen[bytes]] = []
    with (folder / "pebble.log").open("wb") as log:
        try:
            for argv in programs:
                processes.append(
                    subprocess.Popen(
                        argv, stdout=log, stderr=log, env={**os.environ, **(tried if moody else calm)}
                    )
                )
            _await(listen, folder / "ca.pem", folder / "pebble.log")
            url = f"https://localhost:{listen}/dir"
            yield Pebble(url, folder / "ca.pem", http, f"https://localhost:{management}")
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _await(port: int, ca: Path, log: Path) -> None:
    context, deadline = ssl.create_default_context(cafile=ca), time.monotonic() + 10
    while True:
        try:
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname="localhost"),
            ):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"Pebble did not come up: {error}\n{log.read_text()[-2000:]}") from error
            time.sleep(0.05)
