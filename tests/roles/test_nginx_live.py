"""Our server blocks in a real nginx, in front of our relay, with real DERP clients."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from engine.resource import File
from inventory.model import Host
from relay.connection import Connection
from relay.core.handshake import make_private_key, public_key
from roles import certificate
from roles.front import nginx
from roles.front.nginx.http import WEBROOT
from tests.support.acme import free_ports
from tests.support.debian import program
from tests.support.facts import DEBIAN_12

DOMAIN = "hk1.example.org"
CHECKOUT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Front:
    """A running nginx with a running relay behind it."""

    http: int
    https: int
    trust: ssl.SSLContext
    folder: Path


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"no program listens on {port}; exit status {process.poll()}")


def temp_paths(folder: Path) -> str:
    """Return the lines with which nginx needs no folder of its package."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)


def write_configuration(folder: Path, host: Host) -> Path:
    """Write what the roles write, with this machine's places for the host's. Return its path."""
    resources = [
        *nginx.http_resources(host, DEBIAN_12, certificate.issued(host)),
        *nginx.https_resources(host, DEBIAN_12, certificate.issued(host), ""),
    ]
    conf = "".join(
        r.content.decode()
        for r in resources
        if isinstance(r, File) and isinstance(r.content, bytes) and "/zz-" in r.path
    )
    fullchain, key = certificate.files(host)
    for there, here in ((fullchain, "chain.pem"), (key, "key.pem"), (WEBROOT, "webroot")):
        assert there in conf
        conf = conf.replace(there, str(folder / here))
    path = folder / "nginx.conf"
    user = "user root; " if os.geteuid() == 0 else ""  # pytest's folders are its user's own
    path.write_text(
        f"{user}daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;\n"
        f"events {{}}\nhttp {{\n{temp_paths(folder)}{conf}}}\n"
    )
    return path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with serving(tmp_path_factory.mktemp("nginx")) as front:
        yield front


@contextmanager
def serving(folder: Path, adapt: Callable[[str], str] = str) -> Iterator[Front]:
    """Run nginx with the relay behind it. `adapt`: changes nginx's configuration."""
    http, https, backend = free_ports(3)
    host = Host(
        name="hk1",
        domain=DOMAIN,
        region={"id": 901, "code": "hk", "name": "HK"},
        ports={"http": http, "https": https, "backend": backend},
        certificate={"source": "self-signed"},
    )
    challenge = folder / "webroot/.well-known/acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("token.thumbprint")
    make = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-subj", f"/CN={DOMAIN}",
    ]
    make += [
        "-addext",
        f"subjectAltName=DNS:{DOMAIN}",
        "-keyout",
        str(folder / "key.pem"),
        "-out",
        str(folder / "chain.pem"),
    ]
    subprocess.run(make, check=True, capture_output=True)
    conf, binary = write_configuration(folder, host), program("nginx", "nginx")
    conf.write_text(adapt(conf.read_text()))
    subprocess.run([binary, "-t", "-q", "-p", str(folder), "-c", str(conf)], check=True)
    flags = [
        "-a", f"127.0.0.1:{backend}", "-http-port", "-1", "-stun=false", "-hostname", DOMAIN, "-c",
        str(folder / "key.json"),
    ]
    relay = subprocess.Popen(
        [sys.executable, "-m", "relay", *flags, "-trusted-proxies", "127.0.0.1"], cwd=CHECKOUT
    )
    server = subprocess.Popen([binary, "-p", str(folder), "-c", str(conf)])
    try:
        await_port(backend, relay)
        await_port(https, server)
        yield Front(http, https, ssl.create_default_context(cafile=str(folder / "chain.pem")), folder)
    finally:
        for process in (server, relay):
            process.terminate()
            process.wait(20)


def get(
    running: Front, path: str, *, tls: bool = True, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    plain = socket.create_connection(("127.0.0.1", running.https if tls else running.http), timeout=5)
    connection: HTTPConnection = HTTPSConnection(DOMAIN) if tls else HTTPConnection(DOMAIN)
    connection.sock = running.trust.wrap_socket(plain, server_hostname=DOMAIN) if tls else plain
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), body


def test_challenges_are_answered(running: Front) -> None:
    assert get(running, "/.well-known/acme-challenge/token", tls=False)[::2] == (200, b"token.thumbprint")
    assert get(running, "/.well-known/acme-challenge/other", tls=False)[0] == 404


def test_the_captive_portal_check_reaches_the_relay(running: Front) -> None:
    status, headers, _ = get(
        running,
        "/generate_204",
        tls=False,
        headers={"X-Tailscale-Challenge": "ts_hk1", "Host": "203.0.113.10"},
    )
    assert (status, headers["X-Tailscale-Response"]) == (204, "response ts_hk1")


def test_everything_else_on_http_is_sent_to_https(running: Front) -> None:
    status, headers, _ = get(running, "/derp?x=1", tls=False)
    assert (status, headers["Location"]) == (301, f"https://{DOMAIN}:{running.https}/derp?x=1")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/derp/probe", 200), ("/debug/", 404), ("/debug/clients/", 404), ("/metrics", 404), ("/derp", 426)],
)
def test_what_the_front_passes_on(running: Front, path: str, status: int) -> None:
    assert get(running, path)[0] == status


def test_only_modern_tls(running: Front) -> None:
    for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        context = ssl.create_default_context(cafile=str(running.folder / "chain.pem"))
        context.minimum_version = context.maximum_version = version
        with context.wrap_socket(
            socket.create_connection(("127.0.0.1", running.https)), server_hostname=DOMAIN
        ) as tls:
            assert tls.version() == name
            assert "GCM" in tls.cipher()[0] or "CHACHA" in tls.cipher()[0]
    # This OpenSSL may not offer TLS 1.1 any more, so the hello is written by hand.
    old_hello = bytes.fromhex("16030100310100002d0302" + "00" * 32 + "000006c013c014002f0100")
    with socket.create_connection(("127.0.0.1", running.https)) as sock:
        sock.sendall(old_hello)
        assert sock.recv(7)[:1] in (b"\x15", b"")


def test_two_clients_exchange_packets_through_it(running: Front) -> None:
    async def exchange() -> None:
        alice, bob = make_private_key(), make_private_key()
        where = {"address": "127.0.0.1", "port": running.https, "tls": running.trust, "server_name": DOMAIN}
        async with (
            await Connection.open(private_key=alice, **where) as a,
            await Connection.open(private_key=bob, **where) as b,
        ):
            for size in (1, 1280, 65536):
                await a.send(public_key(bob), b"x" * size)
                packet = await b.receive_packet()
                assert (packet.source, packet.packet) == (public_key(alice), b"x" * size)

    asyncio.run(asyncio.wait_for(exchange(), 10))
