"""Our servers beside others in a real nginx: what it takes without us it takes with us."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from engine.facts import Facts, Output
from engine.resource import File
from inventory.model import Host
from roles import certificate
from roles.front import nginx
from roles.front.nginx.http import WEBROOT
from tests.roles.front.test_neighbours import nginx_facts, there
from tests.roles.test_nginx_live import await_port
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
    subject = ["-subj", "/CN=hk1.example.org", "-addext", "subjectAltName=DNS:hk1.example.org"]
    subject += ["-keyout", str(folder / "key.pem")]
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
    both = [*nginx.http_resources(host, facts, issued), *nginx.https_resources(host, facts, issued, "")]
    contents = [r.content for r in both if isinstance(r, File) and "/zz-" in r.path]
    text = "".join(content.decode() for content in contents if isinstance(content, bytes))
    there = (*certificate.files(host), WEBROOT)
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


# Each would take something from our servers, or take them away.
FOR_OTHERS = (
    "limit_conn_zone $binary_remote_addr zone=theirs:1m; limit_conn theirs 1;\n"
    "limit_req_zone $binary_remote_addr zone=slow:1m rate=1r/m; limit_req zone=slow;\n"
    "deny all; auth_basic closed; auth_basic_user_file /nonexistent; auth_request /auth; mirror /mirror;\n"
    "error_page 301 404 426 =200 /oops; proxy_intercept_errors on; recursive_error_pages on;\n"
    "limit_rate 1; proxy_limit_rate 1; proxy_pass_request_headers off; proxy_bind 127.0.0.99;\n"
    "ssl_verify_client on; ssl_client_certificate {0}/chain.pem; client_max_body_size 1m;\n"
)


def with_http(directives: str) -> Facts:
    """Return facts of a host whose http block has these directives."""
    main = "# configuration file /etc/nginx/nginx.conf:\nhttp { include /etc/nginx/conf.d/*.conf;\n"
    return nginx_facts(Output(status=0, stdout=f"{main}{directives}}}\n", stderr=""))


def test_what_http_says_for_other_sites_does_not_reach_ours(stage: Path) -> None:
    host, theirs = our_host(), FOR_OTHERS.replace("{0}", str(stage))
    ours = servers_of(stage, host, with_http(theirs))
    folder = stage / "webroot/.well-known/acme-challenge"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text("thumbprint")
    assert complaint(stage, theirs + ours) == ""
    server = subprocess.Popen([BINARY, "-p", str(stage), "-c", str(stage / "t.conf"), "-g", "daemon off;"])
    try:
        await_port(host.ports.http, server)
        for _ in range(4):
            assert asked(host.ports.http, "/.well-known/acme-challenge/token") == 200
            assert asked(host.ports.http, "/other") == 301
            assert asked(host.ports.https, "/debug/", stage) == 404
            assert asked(host.ports.https, "/derp/probe", stage) == 502  # no relay is behind it here
        assert asked(host.ports.https, "/derp/probe", stage, {"X-Long": "x" * 3000}) == 400
        assert asked(host.ports.https, "/derp/probe", stage, {"Content-Length": "2000"}) == 413
    finally:
        server.terminate()
        server.wait(20)


def test_a_client_cannot_name_its_own_address_where_others_trust_every_proxy(stage: Path) -> None:
    host, theirs = our_host(), "set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For;\n"
    assert complaint(stage, theirs + servers_of(stage, host, with_http(theirs))) == ""
    relay = socket.create_server(("127.0.0.1", host.ports.backend))
    argv = [BINARY, "-p", str(stage), "-c", str(stage / "t.conf"), "-g", "daemon off;"]
    with relay, ThreadPoolExecutor(1) as pool, subprocess.Popen(argv) as server:
        try:
            await_port(host.ports.http, server)
            request = pool.submit(_one_request, relay)
            asked(host.ports.https, "/derp/probe", stage, {"X-Forwarded-For": "192.0.2.66"})
            assert b"X-Forwarded-For: 127.0.0.1\r\n" in request.result(10)
        finally:
            server.terminate()


def _one_request(relay: socket.socket) -> bytes:
    relay.settimeout(10)
    with relay.accept()[0] as connection:
        head = connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return head


def asked(port: int, path: str, stage: Path | None = None, headers: dict[str, str] | None = None) -> int:
    """Return the status of an answer, over TLS where there is a stage with the certificate."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    context = ssl.create_default_context(cafile=str(stage / "chain.pem")) if stage else None
    name = "hk1.example.org"
    connection = HTTPConnection(name)
    connection.sock = context.wrap_socket(plain, server_hostname=name) if context else plain
    connection.request("GET", path, headers=headers or {})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("directives", "expected"),
    [
        ("", []),
        ("limit_conn theirs 5;", ["limit_conn "]),
        ("limit_req zone=slow;", ["limit_req "]),
        ("mirror /x;", ["mirror "]),
        ("server { limit_conn theirs 5; }", []),
    ],
)
def test_modules_that_a_package_may_leave_out_are_named_only_where_others_use_them(
    directives: str, expected: list[str]
) -> None:
    text = servers_of(Path("/x"), our_host(), with_http(directives))
    named = [name for name in ("limit_conn ", "limit_req ", "mirror ") if f"\n    {name}" in text]
    assert named == expected
