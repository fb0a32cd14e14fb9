"""Several processes on one port: two clients reach each other whichever workers they land on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.relay import servers
from inventory.checkout import CHECKOUT
from relay import client as derp
from relay.core import wire
from relay.core.handshake import make_private_key
from relay.observe.census import WRITE_EVERY_S
from tests.relay.live import HungUp, Live, eventually, relay


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.fixture(scope="module", params=["plain", "tls"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with relay(
        tmp_path_factory.mktemp("relay"), "-workers", "3", "-drain", "1s", tls=request.param == "tls"
    ) as running:
        eventually(lambda: running.metrics()["relay_workers"] == 3)
        yield running
        running.assert_undisturbed()


def spread(live: Live, stack: ExitStack, count: int = 12) -> list[derp.Client]:
    """Connect enough clients that no worker has none."""
    return [stack.enter_context(live.connect()) for _ in range(count)]


def test_every_client_reaches_every_other_in_order(live: Live) -> None:
    with ExitStack() as stack:
        peers = spread(live, stack)
        for sender in peers:
            for receiver in peers:
                for n in range(3):
                    sender.client.send(receiver.key, bytes([n]) + bytes(500))
            sender.flush()
        for receiver in peers:
            got: dict[bytes, list[int]] = {}
            for _ in range(3 * len(peers)):
                packet = receiver.expect(derp.Received)
                got.setdefault(packet.source, []).append(packet.packet[0])
            assert got == {sender.key: [0, 1, 2] for sender in peers}


def listed(live: Live, query: str) -> list[dict[str, object]]:
    """Return every client of a listing, page after page, each page from any worker."""
    found: list[dict[str, object]] = []
    link: str | None = f"?{query}&limit=5&format=json"
    while link:
        page = json.loads(live.get(f"/debug/clients/{link}"))
        found += page["clients"]
        link = page.get("next")
        assert page["remaining"] == page["conns"] - len(found)
    return found


@pytest.mark.parametrize("order", ["conn", "-conn", "key", "-key", "ip", "connected", "rx", "-tx", "rxpkts"])
def test_clients_of_all_workers_are_on_one_page(live: Live, order: str) -> None:
    with ExitStack() as stack:
        peers = spread(live, stack)
        for number, peer in enumerate(peers):
            peer.send(peers[0].key, bytes(number))
            peers[0].expect(derp.Received)
        clients = listed(live, f"all&sort={order}")
        assert sorted(str(client["key"]) for client in clients) == sorted(
            f"nodekey:{peer.key.hex()}" for peer in peers
        )
        assert len({client["connNum"] for client in clients}) == len(peers)
        field = {
            "conn": "connNum",
            "connected": "connectedAt",
            "rx": "rxBytes",
            "tx": "txBytes",
            "rxpkts": "rxPkts",
        }.get(order.strip("-"))
        values = [
            str(client["remote"]).rpartition(":")[2] if order == "ip" else client[field or "key"]
            for client in clients
        ]
        values = [int(value) for value in values] if order == "ip" else values
        # Of one column, so of one type.
        assert values == sorted(values, reverse=order.startswith("-"))  # type: ignore[type-var]
        assert "12 matching connections (12 node keys)" in live.get("/debug/clients/?all&limit=2").replace(
            "2 of ", ""
        )


def test_a_key_on_several_workers_counts_once(live: Live) -> None:
    key = make_private_key()
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(live.connect(key))
        assert json.loads(live.get("/debug/clients/?format=json")) == {"conns": 12, "keys": 1}
        assert all(client["dup"] for client in listed(live, "all"))


def test_figures_are_of_all_workers(live: Live) -> None:
    with ExitStack() as stack:
        peers = spread(live, stack)
        time.sleep(WRITE_EVERY_S + 0.5)  # until the figures are of now
        assert live.metrics()["derp_current_connections"] == len(peers)
        before = live.metrics()["derp_packets_received"]
        for peer in peers:
            peer.send(peer.key, b"to itself")
            peer.expect(derp.Received)
        eventually(lambda: live.metrics()["derp_packets_received"] == before + len(peers))
        assert live.get("/debug/check") == "derp.Server ConsistencyCheck okay"


def test_one_peers_traffic_streams_whichever_worker_it_is_on(live: Live) -> None:
    with ExitStack() as stack:
        alice, bob = spread(live, stack, 2)
        for key, want in ((alice.key, (7, 0)), (bob.key, (0, 7))):
            sock = stack.enter_context(live.open())
            sock.sendall(
                f"GET /debug/traffic?key={key.hex()} HTTP/1.1\r\nHost: {servers.HOST}\r\n\r\n".encode()
            )
            sock.settimeout(10)
            assert b" 200 OK" in sock.recv(65536)
            alice.send(bob.key, b"counted")
            bob.expect(derp.Received)
            # No match fails the test.
            line = json.loads(re.search(rb"{.*}", sock.recv(65536))[0])  # type: ignore[index]
            assert line == {
                "Key": f"nodekey:{key.hex()}",
                "Recv": want[0],
                "Sent": want[1],
                "UniqueSenders": int(key == bob.key),
            }


def test_who_leaves_is_gone_for_all(live: Live) -> None:
    with ExitStack() as stack:
        alice, *others = spread(live, stack)
        for other in others:
            alice.send(other.key, b"hello")
        for other in others:
            other.expect(derp.Received)
        alice.close()
        for other in others:
            assert other.expect(derp.Gone) == derp.Gone(alice.key, wire.GONE_DISCONNECTED)


def test_figures_add_up_over_the_workers(live: Live) -> None:
    with ExitStack() as stack:
        peers = spread(live, stack)
        eventually(lambda: live.metrics()["derp_current_connections"] == len(peers), 6)
        assert live.metrics()["derp_clients_remote"] == 0
        assert "okay" in live.get("/debug/check")


def test_a_worker_that_dies_is_started_again(live: Live) -> None:
    victim = sorted(children(live.pid))[0]
    with ExitStack() as stack:
        peers = spread(live, stack)
        os.kill(victim, signal.SIGKILL)
        left = []
        for peer in peers:
            try:
                peer.client.ping(b"12345678")
                peer.flush()
                peer.expect(derp.Ponged)
                left.append(peer)
            except HungUp:
                pass
        assert left
        eventually(lambda: len(children(live.pid)) == 3 and victim not in children(live.pid))
        time.sleep(1.5)  # the newcomer listens, and the others have found it
        newcomers = spread(live, stack)
        for sender in newcomers:
            for receiver in (*left, *newcomers):
                sender.send(receiver.key, b"again")
        for receiver in (*left, *newcomers):
            assert {receiver.expect(derp.Received).source for _ in newcomers} == {
                sender.key for sender in newcomers
            }


def test_a_key_that_comes_back_to_another_worker(live: Live) -> None:
    key = make_private_key()
    with ExitStack() as stack:
        others = spread(live, stack)
        for _ in range(6):
            twin = live.connect(key)
            for other in others:
                other.send(twin.key, b"?")
            for _ in others:
                twin.expect(derp.Received)
            twin.close()


def test_terminating_the_parent_ends_all_and_leaves_nothing(tmp_path: Path) -> None:
    with relay(tmp_path, "-workers", "2", "-drain", "1s", tls=False) as live:
        workers = children(live.pid)
        with live.connect() as peer:
            live.signal(signal.SIGHUP)
            live.signal(signal.SIGTERM)
            assert peer.expect(derp.Restarting).try_for_ms > 0
            peer.wait_hangup()
        assert live.running.process.wait(10) == 0
        assert len(workers) == 2
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would share the port with the next relay, as strangers to its workers."""
    # For the sockets' folder, which no process is left to remove.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with relay(tmp_path, "-workers", "2", "-drain", "1s", tls=False) as live:
        workers = children(live.pid)
        with live.connect() as peer:
            live.signal(signal.SIGKILL)
            assert peer.expect(derp.Restarting).try_for_ms > 0
            peer.wait_hangup()
        assert len(workers) == 2
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        with pytest.raises(ConnectionRefusedError):
            live.tcp()


def test_workers_that_cannot_start_say_why(tmp_path: Path) -> None:
    with relay(tmp_path, tls=False) as live:
        argv = [
            sys.executable, "-m", "relay", "-a", f"127.0.0.1:{live.running.port}", "-c",
            str(tmp_path / "key.json"), "-workers", "2",
        ]
        ended = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert "relay: " in ended.stderr
    assert f"cannot listen on 127.0.0.1 port {live.running.port}" in ended.stderr
    assert "Traceback" not in ended.stderr


def two_neighbours() -> tuple[socket.socket, int]:
    """Return a port in use, and the free one before it."""
    for _ in range(100):
        port = servers.free_port(socket.SOCK_STREAM)
        taken = socket.socket()
        try:
            taken.bind(("127.0.0.1", port + 1))
            taken.listen()
        except OSError:
            taken.close()
            continue
        return taken, port
    raise AssertionError("no two free ports beside each other")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_taken_port_behind_the_metrics_port_stops_no_worker(tmp_path: Path) -> None:
    taken, port = two_neighbours()
    argv = [
        sys.executable,
        "-m",
        "relay",
        "-a",
        f"127.0.0.1:{servers.free_port(socket.SOCK_STREAM)}",
        "-stun=false",
    ]
    argv += ["-c", str(tmp_path / "key.json"), "-workers", "2", "-metrics-listen", f"127.0.0.1:{port}"]
    log = tmp_path / "log"
    with taken, log.open("wb") as out:
        process = subprocess.Popen(argv, cwd=CHECKOUT, stdout=out, stderr=out)
        try:
            eventually(lambda: "no metrics of this worker alone" in log.read_text(), 10)
            eventually(lambda: answers(f"http://127.0.0.1:{port}/metrics"), 10)
        finally:
            process.terminate()
            code = process.wait(15)
    assert code == 0, log.read_text()
