"""The places of the debug pages, /bootstrap-dns, and the sentences of a relay that cannot start.

Real processes.
"""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bench.relay import certs, servers
from engine.scripts import script
from inventory.checkout import CHECKOUT
from tests.relay import live


def fetch(url: str | urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def test_with_an_address_of_their_own_they_are_nowhere_else(tmp_path: Path) -> None:
    port = servers.free_port(socket.SOCK_STREAM)
    with live.relay(tmp_path, "-metrics-listen", f"127.0.0.1:{port}", tls=False) as relay:
        inside, outside = f"http://127.0.0.1:{port}", f"http://{relay.running.address}"
        assert "derp_accepts 0" in fetch(f"{inside}/metrics")[1]
        assert fetch(f"{inside}/debug/clients/?format=json") == (200, '{\n\t"conns": 0,\n\t"keys": 0\n}\n')
        assert fetch(f"{inside}/derp")[0] == fetch(f"{inside}/")[0] == 404
        for path in ("/metrics", "/debug/", "/debug/vars"):
            assert "derp_accepts" not in fetch(outside + path)[1]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9411", 200),
        ("localhost:9411", 200),
        ("[::1]:9411", 200),
        ("", 200),
        ("attacker.example:9411", 403),
        ("127.0.0.1.attacker.example", 403),
        ("198.51.100.1", 403),
        ("[::1", 403),
    ],
)
def test_a_name_that_was_made_to_resolve_to_loopback_is_refused(
    host: str, status: int, tmp_path: Path
) -> None:
    port = servers.free_port(socket.SOCK_STREAM)
    with live.relay(tmp_path, "-metrics-listen", f"127.0.0.1:{port}", tls=False):
        for path in ("/metrics", "/debug/", "/debug/clients/"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
            assert fetch(request)[0] == status


def test_on_a_unix_socket_they_are_for_root_and_the_relays_user(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with live.relay(tmp_path, "-metrics-listen", f"unix:{path}", "-workers", "2", tls=False) as relay:
        for socket_of_worker in (path, tmp_path / "metrics.sock.1"):
            assert stat.filemode(socket_of_worker.stat().st_mode) == "srw-------"
            assert "derp_accepts 0" in fetch_by_socket(socket_of_worker, "localhost")
        assert "denied" in fetch_by_socket(path, "attacker.example")
        assert "derp_accepts" not in fetch(f"http://{relay.running.address}/metrics")[1]
        argv = [sys.executable, "-I", "-c", script("fetch"), "http", servers.HOST, str(path), "/metrics"]
        assert "derp_accepts 0" in subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def fetch_by_socket(path: Path, host: str) -> str:
    """Return the body of /metrics, asked for by that name."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        sock.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sock.recv(65536), b"")).decode()


def test_an_address_that_others_reach_is_asked_by_any_name(tmp_path: Path) -> None:
    port = servers.free_port(socket.SOCK_STREAM)
    with live.relay(tmp_path, "-metrics-listen", f":{port}", tls=False):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Host": "hk1.example.org"}
        )
        assert fetch(request)[0] == 200


@pytest.mark.parametrize(("allow", "status"), [("100.64.0.0/10,127.0.0.0/8", 200), ("100.64.0.0/10", 403)])
def test_chosen_addresses_get_the_metrics_and_nothing_else(tmp_path: Path, allow: str, status: int) -> None:
    """A request that was passed on is not the host's own, so it counts as its peer's."""
    port = servers.free_port(socket.SOCK_STREAM)

    def asked(path: str, **headers: str) -> int:
        return fetch(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers))[0]

    with live.relay(tmp_path, "-metrics-listen", f":{port}", "-metrics-allow", allow, tls=False):
        passed_on = {"X-Forwarded-For": "198.51.100.7"}
        assert [asked("/metrics", **passed_on), asked("/debug/", **passed_on)] == [status, 403]
        assert [asked("/metrics"), asked("/debug/")] == [200, 200]
        assert asked("/metrics", Host="hk1.example.org") == 403


def two_free_ports() -> int:
    """Return the first of two free ports in a row."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, suppress(OSError):
            port = int(first.getsockname()[1])
            with socket.create_server(("127.0.0.1", port + 1)):
                return port


def test_every_worker_has_the_pages_of_all(tmp_path: Path) -> None:
    port = two_free_ports()
    with (
        live.relay(tmp_path, "-metrics-listen", f"127.0.0.1:{port}", "-workers", "2", tls=False) as relay,
        relay.connect() as client,
    ):
        for n in range(2):
            inside = f"http://127.0.0.1:{port + n}"
            listed = json.loads(fetch(f"{inside}/debug/clients/?all&format=json")[1])["clients"]
            assert [entry["key"] for entry in listed] == [f"nodekey:{client.key.hex()}"]
            assert f"{n} of 2" in fetch(f"{inside}/debug/")[1]


def test_the_certificates_end_is_a_metric(tmp_path: Path) -> None:
    with live.relay(tmp_path) as relay:
        metrics = relay.metrics()
        assert metrics["relay_certificate_not_after_unix_time"] > metrics["process_start_unix_time"]
        assert metrics["relay_front_ok"] == metrics["relay_consistent"] == 1
        with relay.connect(), relay.connect():
            assert relay.metrics()['derper_tls_active_version{version="1.3"}'] == 2
        live.eventually(lambda: relay.metrics()['derper_tls_active_version{version="1.3"}'] == 0)


def test_bootstrap_dns(tmp_path: Path) -> None:
    names = ["-bootstrap-dns-names", "localhost", "-unpublished-bootstrap-dns-names", "ip6-localhost"]
    with live.relay(tmp_path, *names, tls=False) as relay:
        url = f"http://{relay.running.address}/bootstrap-dns"
        live.eventually(lambda: "localhost" in json.loads(fetch(url)[1]))
        assert set(json.loads(fetch(url)[1])["localhost"]) <= {"127.0.0.1", "::1"}
        assert relay.counted({}, "^bootstrap_dns_requests") >= 2
    with live.relay(tmp_path, tls=False) as relay:
        assert json.loads(fetch(f"http://{relay.running.address}/bootstrap-dns")[1]) == {}


@pytest.mark.parametrize(
    "flags, says",
    [
        (["-hostname", "other.example"], "is for derp.bench.test, not for other.example"),
        (["-allow-file", "nowhere"], "relay: allow file nowhere: No such file or directory"),
        (["-allow-file", "junk"], "relay: allow file junk line 1 "),
        (["-rate-config", "junk"], "relay: rate config junk is not JSON"),
        (["-rate-config", "nowhere"], "No such file or directory: 'nowhere'"),
        (["-c", "junk"], "relay: key file junk is not JSON; put the right one there"),
        (["-mesh-psk-file", "junk"], "relay: mesh key file junk has "),
        (["-a", "203.0.113.7:443"], "cannot listen on 203.0.113.7 port 443"),
    ],
)
def test_a_relay_that_cannot_start_says_why_in_one_line(tmp_path: Path, flags: list[str], says: str) -> None:
    certs.make(tmp_path / "certs", servers.HOST)
    (tmp_path / "certs/other.example.crt").write_text(
        (tmp_path / "certs" / f"{servers.HOST}.crt").read_text()
    )
    (tmp_path / "certs/other.example.key").write_text(
        (tmp_path / "certs" / f"{servers.HOST}.key").read_text()
    )
    (tmp_path / "junk").write_text("junk")
    argv = [
        sys.executable, "-m", "relay", "-a", f"127.0.0.1:{servers.free_port(socket.SOCK_STREAM)}",
        "-http-port", "-1", "-stun=false",
    ]
    argv += ["-hostname", servers.HOST, "-certmode", "manual", "-certdir", "certs", "-c", "key", *flags]
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert says in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_workers_know_each_other_before_clients_come(tmp_path: Path) -> None:
    with live.relay(tmp_path, "-workers", "3", tls=False) as relay, ExitStack() as stack:
        peers = [stack.enter_context(relay.connect()) for _ in range(9)]
        time.sleep(0.1)  # this much the mesh of a region may take to hear of a client
        for sender in peers:
            for receiver in peers:
                sender.send(receiver.key, b"at once")
        for receiver in peers:
            assert {receiver.expect(live.derp.Received).source for _ in peers} == {
                sender.key for sender in peers
            }
