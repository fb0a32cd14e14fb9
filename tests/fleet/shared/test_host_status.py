"""The commands that read a relay's status: over HTTP and TLS, and in a container's network."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from engine.facts import Output
from engine.scripts import script
from fleet.shared import host_status
from inventory.docker import Docker
from inventory.model import Host, Ports, Region
from lab.certificates import make_server_certificate
from probe.cutover import counted
from tests.support.facts import DEBIAN_12

DOMAIN = "hk1.example.org"
VARZ = (
    "# TYPE derp_clients_local gauge\nderp_clients_local 7\n"
    '# TYPE version gauge\nversion{version="1.90.0",binary="derper"} 1\n'
    "process_start_unix_time 1000.5\n"
)


class Metrics(BaseHTTPRequestHandler):
    """The metrics page of derper, or of our relay."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path in ("/debug/varz", "/metrics") else 404)
        self.end_headers()
        self.wfile.write(VARZ.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Metrics) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


def shut_to_strangers(server: HTTPServer, folder: Path) -> None:
    """Serve TLS as derper does: no certificate for a client that does not ask for the name."""
    _, chain, key = make_server_certificate(DOMAIN, IPv4Address("127.0.0.1"))
    (folder / "pair.pem").write_bytes(chain + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    context.sni_callback = lambda _, name, __: (
        None if name == DOMAIN else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    )
    server.socket = context.wrap_socket(server.socket, server_side=True)


@pytest.mark.parametrize(
    ("flavour", "front"), [("python", "nginx"), ("python", "none"), ("docker", "nginx"), ("docker", "none")]
)
def test_clients_and_version_of_either_flavour(
    server: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flavour: str, front: str
) -> None:
    port = server.server_port
    which = (
        {"metrics": port}
        if flavour == "python"
        else {"backend": port}
        if front == "nginx"
        else {"https": port}
    )
    host = Host(
        name="hk1",
        domain=DOMAIN,
        region=Region(id=901, code="hk", name="Hong Kong"),
        flavour=flavour,
        front=front,
        ports=Ports(**which),
        docker=Docker(archive="derper.tar"),
    )
    if (flavour, front) == ("docker", "none"):
        shut_to_strangers(server, tmp_path)
    docker = tmp_path / "docker"  # the container is this test's own network
    docker.write_text(f"#!/bin/sh\necho {os.getpid()}\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    argv = host_status._ask(host, [host]).commands["metrics"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    said = host_status._read(
        host, replace(DEBIAN_12, commands={"metrics": Output(status=0, stdout=done.stdout, stderr="")})
    )
    assert (said.clients, said.version) == (7, "1.90.0")


def test_clients_are_watched_until_all_are_back(server: HTTPServer) -> None:
    fetch = (sys.executable, "-I", "-c", script("fetch"), "http", DOMAIN, str(server.server_port), "/metrics")
    argv = (sys.executable, "-I", "-c", script("watch_clients"), "7", "10", *fetch)
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    (line,) = done.stdout.splitlines()
    assert line.startswith("7 1000.5 ")
    found = counted("derp_clients_local 9\nprocess_start_unix_time 900\n", done.stdout)
    assert found is not None
    assert (found.cut, found.back) == (9, 7)


@pytest.mark.parametrize(
    ("answer", "page"),
    [
        ("", ""),
        ("HTTP/1.1 200 OK\r\nContent-Len", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nderp_clients_local 1", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nderp_clients_local 12\n", "derp_clients_local 12\n"),
        ("HTTP/1.0 200 OK\r\n\r\nderp_clients_local 12\n", "derp_clients_local 12\n"),
    ],
)
def test_an_answer_that_is_cut_short_is_none(answer: str, page: str) -> None:
    """A relay that has just ended has accepted a connection; it runs no longer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        argv = (sys.executable, "-I", "-c", script("fetch"), "http", DOMAIN, port, "/metrics")
        asking = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line, _ = server.accept()
        with line:
            line.recv(4096)
            line.sendall(answer.encode())
        out, err = asking.communicate(timeout=20)
    assert (out, asking.returncode == 0) == (page and f"{page}\n", bool(page)), err


def test_a_relay_that_does_not_answer_is_watched_for_so_long_only() -> None:
    argv = (sys.executable, "-I", "-c", script("watch_clients"), "7", "0.3", sys.executable, "-c", "1/0")
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    assert (done.stdout, done.stderr) == ("", "")
