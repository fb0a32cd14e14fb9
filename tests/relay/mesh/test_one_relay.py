"""Workers as processes: clients, other relays and the operator see one relay.

tests/relay/core/test_workers.py has the rules; here are the links, the waiting and the clocks.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bench.relay import servers
from bench.relay.workers import first_packets, login, silent_peers
from relay import client as derp
from relay.core import wire
from relay.core.handshake import ClientInfo, make_private_key
from tests.relay.live import Live, Peer, eventually, relay
from tests.relay.mesh.test_mesh import MESH_KEY, reaches, region
from tests.relay.mesh.test_workers import children

ENOUGH = 12  # clients of which no worker has none, all but surely


def await_all(live: Live, workers: int) -> None:
    """Wait until every worker listens. The first answers alone, and would get all the clients."""
    eventually(lambda: live.log().count("listening address=") == workers, 20)


@contextmanager
def four(folder: Path) -> Iterator[Live]:
    (folder / "mesh.key").write_text(MESH_KEY.hex())
    flags = ("-workers", "4", "-drain", "1s", "-mesh-psk-file", str(folder / "mesh.key"))
    with relay(folder, *flags, tls=False) as running:
        await_all(running, 4)
        yield running
        running.assert_undisturbed()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with four(tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Live]:
    """Run a relay whose figures are of one test alone; those of a worker are seconds old."""
    with four(tmp_path) as running:
        yield running


def test_the_first_packet_after_a_login_arrives(live: Live) -> None:
    assert asyncio.run(first_packets(live.running.port, 100)) == (0, 0)


def test_no_peer_of_a_client_that_comes_again_falls_silent(live: Live) -> None:
    assert asyncio.run(silent_peers(live.running.port, 6, 4)) == 0


def test_packets_go_to_the_connection_that_spoke_last(live: Live) -> None:
    key = make_private_key()
    with ExitStack() as stack:
        twins = [stack.enter_context(live.connect(key)) for _ in range(ENOUGH)]
        other = stack.enter_context(live.connect())
        for twin in (*twins, *reversed(twins)):
            twin.send(other.key, b"hello")
            other.expect(derp.Received)
            twin.client.ping(b"12345678")
            twin.flush()
            twin.expect(derp.Ponged)
            other.send(twin.key, b"hello yourself")
            assert twin.expect(derp.Received).packet == b"hello yourself"


def test_duplicates_are_counted_over_all_workers(fresh: Live) -> None:
    key = make_private_key()
    with ExitStack() as stack:
        for _ in range(ENOUGH):
            stack.enter_context(fresh.connect(key))
        stack.enter_context(fresh.connect())
        wanted = {
            "derp_current_connections": ENOUGH + 1,
            "derp_clients_local": 2,
            "derp_current_dup_client_keys": 1,
            "derp_current_dup_client_conns": ENOUGH,
            "derp_accepts": ENOUGH + 1,
            "derp_total_dup_client_conns": ENOUGH - 1,
        }

        def are(wanted: dict[str, int]) -> bool:
            found = fresh.metrics()
            return all(found[name] == value for name, value in wanted.items())

        eventually(lambda: are(wanted), 10)
        clients = json.loads(fresh.get("/debug/clients/?all&format=json"))["clients"]
        twins = [client for client in clients if client["dup"]]
        assert len(twins) == ENOUGH
        assert [twin["connNum"] for twin in twins if twin["active"]] == [
            max(twins, key=lambda twin: str(twin["connectedAt"]))["connNum"]
        ]
    eventually(lambda: are({"derp_current_connections": 0, "derp_current_dup_client_keys": 0}), 10)
    assert fresh.get("/debug/check") == "derp.Server ConsistencyCheck okay"


def test_packets_between_workers_are_none_of_other_relays(fresh: Live) -> None:
    with ExitStack() as stack:
        sender, *others = [stack.enter_context(fresh.connect()) for _ in range(ENOUGH)]
        for other in others:
            sender.send(other.key, b"hello")
            other.expect(derp.Received)
        eventually(lambda: fresh.metrics()["derp_packets_sent"] == ENOUGH - 1, 10)
        eventually(lambda: fresh.metrics()["relay_packets_to_workers"] > 0, 10)
        assert fresh.counted({}, "derp_packets_forwarded") == 0


def watched(watcher: Peer, kind: type[derp.Present | derp.Gone], key: bytes, count: int) -> int:
    """Return how many news of this kind about a key came, of at least `count`, before a pong."""
    found = 0
    while found < count:
        event = watcher.expect(kind)
        found += (event.peer.key if isinstance(event, derp.Present) else event.key) == key
    watcher.client.ping(b"all read")
    watcher.flush()
    while not isinstance(event := watcher.receive(), derp.Ponged):
        found += isinstance(event, kind) and key in (getattr(event, "key", b""), _key_of(event))
    return found


def _key_of(event: derp.Event) -> bytes:
    return event.peer.key if isinstance(event, derp.Present) else b""


def test_a_watcher_hears_of_each_connection_and_once_that_the_key_is_gone(live: Live) -> None:
    key = make_private_key()
    with ExitStack() as stack:
        watchers = [
            stack.enter_context(live.connect(info=ClientInfo(mesh_key=MESH_KEY))) for _ in range(ENOUGH)
        ]
        for watcher in watchers:
            watcher.client.watch()
            watcher.flush()
        twins = [live.connect(key) for _ in range(ENOUGH)]
        for watcher in watchers:
            assert watched(watcher, derp.Present, twins[0].key, ENOUGH) == ENOUGH
        for twin in twins:
            twin.close()
        for watcher in watchers:
            assert watched(watcher, derp.Gone, twins[0].key, 1) == 1


def test_the_relays_own_client_comes_before_another_relays(tmp_path: Path) -> None:
    three = servers.relay("-workers", "3")
    with region(tmp_path, three, servers.relay()) as (ours, theirs), ExitStack() as s:
        await_all(ours, 3)
        key = make_private_key()
        away = s.enter_context(theirs.connect(key))
        senders = [s.enter_context(ours.connect()) for _ in range(ENOUGH)]
        for sender in senders:
            eventually(lambda sender=sender: reaches(sender, away), 30)
        here = s.enter_context(ours.connect(key))
        for sender in senders:
            sender.send(here.key, b"no detour")
        got = {here.expect(derp.Received).source for _ in senders}
        assert got == {sender.key for sender in senders}


def test_a_worker_that_hangs_keeps_nobody_out_of_the_others(tmp_path: Path) -> None:
    with relay(tmp_path, "-workers", "2", "-drain", "1s", tls=False) as live:
        await_all(live, 2)
        hung = min(children(live.pid))

        async def first_of_many() -> None:
            tries = [asyncio.ensure_future(login(live.running.port)) for _ in range(ENOUGH)]
            done, late = await asyncio.wait(tries, timeout=20, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result().close()
            for each in late:
                each.cancel()
            assert done

        os.kill(hung, signal.SIGSTOP)
        try:
            asyncio.run(first_of_many())
        finally:
            os.kill(hung, signal.SIGCONT)
        live.assert_undisturbed()


def test_workers_share_the_limit_of_new_connections(tmp_path: Path) -> None:
    port = servers.free_port(socket.SOCK_STREAM)
    limit = ("-accept-connection-limit", "0.001", "-accept-connection-burst", "8")
    with relay(tmp_path, "-workers", "2", "-metrics-listen", f"127.0.0.1:{port}", *limit, tls=False) as live:
        await_all(live, 2)

        def count(what: str) -> float:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
                lines = page.read().decode().splitlines()
            return next(float(line.split()[1]) for line in lines if line.startswith(f"tls_listener_{what} "))

        for _ in range(60):
            with live.tcp() as sock, suppress(OSError):
                sock.sendall(b"GET /generate_204 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                while sock.recv(4096):
                    pass
        eventually(
            lambda: count("accepted_connections") + count("rejected_connections") >= 61, within_s=10
        )
        assert count("accepted_connections") == 8


def test_frames_of_workers_mean_nothing_from_others(fresh: Live) -> None:
    with fresh.connect(info=ClientInfo(mesh_key=MESH_KEY)) as stranger:
        forged = wire.PeerPresent(bytes(range(32)), connections=7, since=1e12)
        stranger.raw(wire.pack_peer_state(forged) + wire.pack_pong(b"12345678"))
        stranger.client.ping(b"12345678")
        stranger.flush()
        stranger.expect(derp.Ponged)
        eventually(lambda: fresh.metrics()["derp_unknown_frames"] == 2, 10)
