"""Fronts that hand connections on, as the roles write them, before a real relay of ours."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from engine.resource import File
from inventory.model import Host
from relay.client import Admitted, Received
from roles import certificate
from roles.front import external
from roles.front.nginx import stream
from roles.front.nginx.http import WEBROOT
from roles.relay.contract import Admitting
from roles.relay.programs import ours
from roles.wiring import wire
from tests.probe.authority import Authority, Issued
from tests.probe.servers import program
from tests.relay.live import Peer
from tests.roles.cases import shipment
from tests.roles.front.test_neighbours import there
from tests.support import debian
from tests.support.acme import free_ports

DOMAIN, SHOP = "hk1.example.org", "shop.example.org"
CALLER = "127.0.0.77"  # the clients' connections come from there


@dataclass(frozen=True)
class Stage:
    """Certificates of an authority, and a folder for a test's files."""

    folder: Path
    trust: ssl.SSLContext
    relay: Issued
    shop: Issued


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    authority = Authority(tmp_path)
    trust = ssl.create_default_context(cafile=str(authority.ca))
    return Stage(tmp_path, trust, authority.issue(DOMAIN), authority.issue(SHOP))


def a_host(front: str, **settings: Any) -> Host:
    https, http, backend, metrics = free_ports(4)
    ports = {"https": https, "http": http, "backend": backend, "metrics": metrics}
    region = {"id": 901, "code": "hk", "name": "HK"}
    plain = {"certificate": {"source": "self-signed"}, "relay": {"open": True}}
    return Host(name="hk1", domain=DOMAIN, region=region, front=front, ports=ports, **plain | settings)


@contextmanager
def relay_of(host: Host, stage: Stage) -> Iterator[None]:
    """Run our relay with the flags that the roles give it, but for its files and STUN."""
    start = ours.start(host, wire(host), there(), shipment(host), Admitting())
    flags = {name: values for name, *values in start.flags}
    certs = stage.folder / "certs"
    certs.mkdir()
    (certs / f"{DOMAIN}.crt").write_bytes(stage.relay.chain.read_bytes())
    (certs / f"{DOMAIN}.key").write_bytes(stage.relay.key.read_bytes())
    here = {"-c": [str(stage.folder / "relay.key")], "-stun-port": [str(free_ports(1)[0])]}
    flags |= here | ({"-certdir": [str(certs)]} if "-certdir" in flags else {})
    words = [word for name, values in flags.items() for word in (name, *values)]
    argv = [sys.executable, "-m", "relay", *words]
    with program(argv, stage.folder / "relay.log", host.ports.backend):
        yield


@contextmanager
def client(host: Host, stage: Stage) -> Iterator[Peer]:
    """Log a client in through the front, over TLS, from `CALLER`."""
    plain = socket.create_connection(("127.0.0.1", host.ports.https), 10, source_address=(CALLER, 0))
    with Peer(stage.trust.wrap_socket(plain, server_hostname=DOMAIN)) as peer:
        peer.client.start(f"{DOMAIN}:{host.ports.https}")
        peer.flush()
        peer.expect(Admitted)
        yield peer


def callers(host: Host) -> list[str]:
    """Return the addresses of the clients that the relay sees."""
    page = f"http://127.0.0.1:{host.ports.metrics}/debug/clients/?all&format=json"
    with urllib.request.urlopen(page, timeout=5) as answer:
        return [entry["remote"].rpartition(":")[0] for entry in json.load(answer)["clients"]]


def assert_passes(host: Host, stage: Stage) -> None:
    """Check: two clients reach each other, have their own addresses there, and port 80 answers."""
    with client(host, stage) as alice, client(host, stage) as bob:
        for size in (1, 1280, 65536):
            alice.send(bob.key, b"x" * size)
            got = bob.expect(Received)
            assert (got.source, got.packet) == (alice.key, b"x" * size)
        assert callers(host) == [CALLER, CALLER]
    connection = HTTPConnection("127.0.0.1", host.ports.http, timeout=5)
    connection.request("GET", "/generate_204", headers={"X-Tailscale-Challenge": "ts_203.0.113.10"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["X-Tailscale-Response"]) == (204, "response ts_203.0.113.10")
    connection.close()


# nginx


def nginx_with_stream(folder: Path, main: str, http: str) -> list[str]:
    """Write a configuration with these contexts. Return the argv that runs it."""
    binary = debian.program("nginx", "nginx")
    module = debian.unpacked("libnginx-mod-stream", "usr/lib/nginx/modules/ngx_stream_module.so")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temps = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root; " if os.geteuid() == 0 else ""
    conf = folder / "nginx.conf"
    conf.write_text(
        f"load_module {module};\n{user}daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;\n"
        f"{main}\nevents {{}}\nhttp {{\naccess_log off;\n{temps}{http}}}\n"
    )
    argv = [binary, "-p", str(folder), "-c", str(conf)]
    subprocess.run([*argv, "-t", "-q"], check=True)
    return argv


def shop(stage: Stage, port: int) -> str:
    """Return somebody's site, moved behind a stream as the refusal says it."""
    return (
        f"server {{ listen 127.0.0.1:{port} ssl proxy_protocol; server_name {SHOP};\n"
        f"ssl_certificate {stage.shop.chain}; ssl_certificate_key {stage.shop.key};\n"
        "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;\n"
        'location / { return 200 "shop for $remote_addr"; } }\n'
    )


def shop_says(host: Host, stage: Stage) -> str:
    plain = socket.create_connection(("127.0.0.1", host.ports.https), 10, source_address=(CALLER, 0))
    connection = HTTPConnection(SHOP)
    connection.sock = stage.trust.wrap_socket(plain, server_hostname=SHOP)
    connection.request("GET", "/")
    said = connection.getresponse().read().decode()
    connection.close()
    return said


def test_nginx_by_name_leads_to_the_relay_and_to_the_other_site(stage: Stage) -> None:
    host, port = a_host("nginx-stream"), free_ports(1)[0]
    theirs = shop(stage, port)
    facts = there(theirs.removeprefix("server {").rstrip().removesuffix("}"))
    files = {
        Path(r.path).name: r.content.decode()
        for r in stream.http_resources(host, facts, certificate.issued(host))
        if isinstance(r, File) and isinstance(r.content, bytes) and "/zz-" in r.path
    }
    ours_80 = files["zz-derpfleet-http.conf"].replace(WEBROOT, str(stage.folder))
    argv = nginx_with_stream(stage.folder, files["zz-derpfleet-stream.conf"], theirs + ours_80)
    with relay_of(host, stage), program(argv, stage.folder / "front.log", host.ports.https):
        assert_passes(host, stage)
        assert shop_says(host, stage) == f"shop for {CALLER}"


# The operator's own front: the fragment that a deploy prints, run by the real program.


def fragment(kind: str, tls: str) -> tuple[Host, str]:
    source = {"passthrough": "self-signed", "terminated": "front"}[tls]
    host = a_host("external", external={"kind": kind, "tls": tls}, certificate={"source": source})
    content = external.fragment(host).content
    assert isinstance(content, bytes)
    return host, content.decode()


def their_nginx(stage: Stage, host: Host, text: str) -> list[str]:
    """Put the fragment's lines where its comments say."""
    lines = text.splitlines(keepends=True)
    http = "".join(line.removeprefix("# ") for line in lines if line.startswith("#     "))
    port = free_ports(1)[0]
    in_stream = text.replace("127.0.0.1:444", f"127.0.0.1:{port}")
    servers = f"server {{ listen {host.ports.http}; {http} }}\n{shop(stage, port)}"
    return nginx_with_stream(stage.folder, f"stream {{ access_log off;\n{in_stream}\n}}", servers)


HAPROXYS_LIBRARIES = ("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")


def their_haproxy(stage: Stage, host: Host, text: str) -> list[str]:
    pem = stage.folder / "haproxy.pem"
    pem.write_bytes(stage.relay.chain.read_bytes() + stage.relay.key.read_bytes())
    conf = stage.folder / "haproxy.cfg"
    conf.write_text(text.replace(f"/etc/haproxy/{DOMAIN}.pem", str(pem)))
    triplet = f"usr/lib/{sysconfig.get_config_var('MULTIARCH')}"
    libraries = ":".join(debian.unpacked(package, triplet) for package in HAPROXYS_LIBRARIES)
    binary = debian.program("haproxy", "haproxy")
    return ["env", f"LD_LIBRARY_PATH={libraries}", binary, "-db", "-f", str(conf)]


def their_caddy(stage: Stage, host: Host, text: str) -> list[str]:
    """Use the test's certificate: there is no ACME server here."""
    conf = stage.folder / "Caddyfile"
    own = f"\ttls {stage.relay.chain} {stage.relay.key}\n\treverse_proxy 127"
    lines = text.replace("\treverse_proxy 127", own)
    assert lines != text
    conf.write_text(f"{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {stage.folder}\n}}\n{lines}")
    return [debian.program("caddy", "caddy"), "run", "--config", str(conf)]


Run = Callable[[Stage, Host, str], list[str]]


@pytest.mark.parametrize(
    ("kind", "tls", "run"),
    [
        ("nginx-stream", "passthrough", their_nginx),
        ("haproxy", "passthrough", their_haproxy),
        ("haproxy", "terminated", their_haproxy),
        ("caddy", "terminated", their_caddy),
    ],
)
def test_the_fragment_leads_to_the_relay(stage: Stage, kind: str, tls: str, run: Run) -> None:
    host, text = fragment(kind, tls)
    argv = run(stage, host, text)
    with ExitStack() as stack:
        stack.enter_context(relay_of(host, stage))
        stack.enter_context(program(argv, stage.folder / "front.log", host.ports.https))
        assert_passes(host, stage)
        if tls == "terminated":
            assert hidden(host, stage) == [404, 404]


def hidden(host: Host, stage: Stage) -> list[int]:
    """Return the statuses of the relay's own pages, asked for through the front."""
    found = []
    for path in ("/debug/", "/metrics"):
        plain = socket.create_connection(("127.0.0.1", host.ports.https), 10)
        connection = HTTPConnection(DOMAIN)
        connection.sock = stage.trust.wrap_socket(plain, server_hostname=DOMAIN)
        connection.request("GET", path)
        found.append(connection.getresponse().status)
        connection.close()
    return found


def test_challenges_reach_certbot_through_haproxy(stage: Stage) -> None:
    """certbot answers on loopback, where the challenge of the order says it does."""
    acme = {"source": "letsencrypt", "agree_terms": True}
    ports = dict(zip(("https", "http", "backend", "challenge"), free_ports(4), strict=True))
    host = a_host("external", external={"kind": "haproxy"}, certificate=acme)
    host = host.model_copy(update={"ports": host.ports.model_copy(update=ports)})
    content = external.fragment(host).content
    assert isinstance(content, bytes)
    words = external.challenge(host, there()).authenticator
    place = dict(zip(words[1::2], words[2::2], strict=True))
    answers = [
        sys.executable, "-m", "http.server", place["--http-01-port"],
        "--bind", place["--http-01-address"], "--directory", str(stage.folder),
    ]
    token = stage.folder / ".well-known" / "acme-challenge" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("thumbprint")
    with (
        program(answers, stage.folder / "certbot.log", host.ports.challenge),
        program(their_haproxy(stage, host, content.decode()), stage.folder / "front.log", host.ports.http),
    ):
        connection = HTTPConnection("127.0.0.1", host.ports.http, timeout=5)
        connection.request("GET", "/.well-known/acme-challenge/token", headers={"Host": DOMAIN})
        assert connection.getresponse().read() == b"thumbprint"
        connection.close()
