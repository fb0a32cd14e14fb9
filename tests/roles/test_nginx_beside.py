"""Our servers beside others in a real nginx: what it takes without us it takes with us."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine.facts import Facts
from engine.resource import File
from inventory.model import Host
from roles import certificate, paths
from roles.front import nginx
from tests.roles.front.test_neighbours import there
from tests.support.acme import free_ports
from tests.support.debian import program

BINARY = program("nginx", "nginx")
# Beside a server of ours that was there first. {0} is the https port, {1} the http port.
LATER = [
    "listen [::]:{0} ssl ipv6only=on; listen {0} ssl;",  # certbot's
    "listen {0} ssl default_server; listen [::]:{0} ssl default_server; listen {1} default_server;",
    "listen {0} ssl reuseport backlog=4096; listen [::]:{0} ssl reuseport;",
    "listen {0} ssl so_keepalive=on deferred fastopen=16; listen {1} rcvbuf=64k sndbuf=64k;",
    "listen 127.0.0.9:{0} ssl default_server; listen 127.0.0.9:{1} default_server;",
    "listen {0} ssl http2; listen [::1]:{0} ssl http2 default_server;",
    "listen {1}; listen [::]:{1} ipv6only=on;",
    "listen {0} ssl; ssl_session_cache shared:mine:1m; ssl_protocols TLSv1.2;",
]
AROUND = [
    "map_hash_bucket_size 128; map_hash_max_size 4096;",
    "limit_conn_zone $binary_remote_addr zone=default:1m; limit_conn default 5;",
    "ssl_session_cache shared:SSL:2m; server_names_hash_bucket_size 128; variables_hash_max_size 2048;",
    "proxy_headers_hash_max_size 1024; proxy_headers_hash_bucket_size 128; types_hash_max_size 2048;",
    "map $http_upgrade $connection_upgrade { default upgrade; '' close; }",
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nginx")
    subject = ["-subj", "/CN=hk1.example.org", "-keyout", str(folder / "key.pem")]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*make, *subject, "-out", str(folder / "chain.pem")], check=True, capture_output=True)
    return folder


def our_host() -> Host:
    https, http, backend = free_ports(3)
    return Host(
        name="hk1",
        domain="hk1.example.org",
        region={"id": 901, "code": "hk", "name": "HK"},
        ports={"http": http, "https": https, "backend": backend},
        certificate={"source": "self-signed"},
    )


def servers_of(folder: Path, host: Host, facts: Facts) -> str:
    """Return our servers with this machine's places for the host's."""
    issued = certificate.issued(host)
    both = [*nginx.http_resources(host, facts), *nginx.https_resources(host, facts, issued, "")]
    contents = [r.content for r in both if isinstance(r, File) and "/zz-" in r.path]
    text = "".join(content.decode() for content in contents if isinstance(content, bytes))
    there = (*certificate.files(host), paths.WEBROOT)
    for path, here in zip(there, ("chain.pem", "key.pem", "webroot"), strict=True):
        text = text.replace(path, str(folder / here))
    return text


def complaint(folder: Path, http: str) -> str:
    """Return the reason why nginx does not take an http block, or ""."""
    conf = folder / "t.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temps = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root; " if os.geteuid() == 0 else ""
    conf.write_text(
        f"{user}pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{\n{temps}access_log off;\n{http}}}\n"
    )
    argv = [BINARY, "-t", "-q", "-p", str(folder), "-c", str(conf)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=30)
    return done.stderr if done.returncode else ""


def neighbour(folder: Path, lines: str, host: Host) -> str:
    certificates = f"ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;"
    text = lines.format(host.ports.https, host.ports.http)
    return f"server {{ {text} server_name blog.example.org; {certificates} return 200 blog; }}\n"


@pytest.mark.parametrize("lines", LATER)
@pytest.mark.parametrize("addresses", [("203.0.113.10",), ("203.0.113.10", "2001:db8::10")])
def test_a_neighbour_who_comes_later_may_listen_as_it_likes(
    stage: Path, lines: str, addresses: tuple[str, ...]
) -> None:
    host = our_host()
    theirs = neighbour(stage, lines, host)
    assert complaint(stage, theirs) == ""
    fresh = replace(there(), addresses=addresses)
    ours = servers_of(stage, host, fresh)
    for http in (theirs + ours, ours + theirs):
        assert complaint(stage, http) == ""
    # The next deploy listens where the neighbour does.
    inside = theirs.removeprefix("server {").rstrip().removesuffix("}")
    deployed = servers_of(stage, host, replace(there(inside), addresses=addresses))
    assert complaint(stage, theirs + deployed) == ""


@pytest.mark.parametrize("around", AROUND)
def test_settings_of_http_may_be_before_and_after_ours(stage: Path, around: str) -> None:
    host = our_host()
    ours = servers_of(stage, host, there())
    for http in (around + ours, ours + around):
        assert complaint(stage, http) == ""
