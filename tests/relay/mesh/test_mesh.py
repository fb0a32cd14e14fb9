"""Relays of one region, over https: ours with ours, and ours with derper."""

from __future__ import annotations

import dataclasses
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.relay import certs, generator, servers
from relay import client as derp
from relay.core import wire
from relay.core.handshake import ClientInfo
from relay.keys.node_key import NodeKey, render_key_file
from relay.mesh import mesh
from tests.relay.live import Live, Peer, eventually

MESH_KEY = bytes(range(32))


class Region:
    """Relays on loopback. Each knows all of them, itself included."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._ca = certs.make(folder / "certs", servers.HOST)
        self._psk = folder / "mesh.key"
        self._psk.write_text(MESH_KEY.hex() + "\n")
        self._ports = [servers.free_port(socket.SOCK_STREAM) for _ in range(count)]

    @contextmanager
    def relay(self, number: int, server: servers.Server) -> Iterator[Live]:
        """Start one of them; a second time it is the same relay again."""
        home = self._folder / str(number)
        if not home.exists():
            shutil.copytree(self._folder / "certs", home / "certs")
            (home / "key.json").write_bytes(render_key_file(NodeKey.generate()))
        entries = ",".join(f"{servers.HOST}:{port}/127.0.0.1" for port in self._ports)
        flags = (*server.flags, "-mesh-psk-file", str(self._psk), "-mesh-with", entries)
        env = {**server.env, "SSL_CERT_FILE": str(self._ca)}
        with servers.running(
            dataclasses.replace(server, flags=flags, env=env), home, port=self._ports[number]
        ) as running:
            yield Live(running)


@contextmanager
def region(folder: Path, *relays: servers.Server) -> Iterator[list[Live]]:
    """Run all of a region's relays."""
    made = Region(folder, len(relays))
    with ExitStack() as stack:
        yield [stack.enter_context(made.relay(number, server)) for number, server in enumerate(relays)]


def login(live: Live, stack: ExitStack, **options: object) -> Peer:
    return stack.enter_context(live.connect(**options))


def reaches(sender: Peer, receiver: Peer) -> bool:
    """Whether packets pass now."""
    sender.send(receiver.key, b"mesh?")
    try:
        return receiver.expect(derp.Received, 0.5).source == sender.key
    except TimeoutError:
        return False


def test_two_relays_are_one(tmp_path: Path) -> None:
    with region(tmp_path, servers.relay(), servers.relay("-workers", "2")) as (a, b), ExitStack() as stack:
        eventually(lambda: a.metrics()["relay_mesh_links"] == 1 and b.metrics()["relay_mesh_links"] == 2, 20)
        alices, bobs = [login(a, stack) for _ in range(4)], [login(b, stack) for _ in range(4)]
        time.sleep(0.3)
        for alice in alices:
            for bob in bobs:
                assert reaches(alice, bob)
                assert reaches(bob, alice)
        for packet in (b"", bytes(65_536)):
            alices[0].send(bobs[0].key, packet)
            assert bobs[0].expect(derp.Received).packet == packet
        alices[0].close()
        assert bobs[0].expect(derp.Gone) == derp.Gone(alices[0].key, wire.GONE_DISCONNECTED)
        assert "okay" in a.get("/debug/check")
        watcher = login(a, stack, info=ClientInfo(mesh_key=MESH_KEY))
        watcher.raw(wire.pack_close_peer(alices[1].key))
        alices[1].wait_hangup()


def test_ours_and_derper_are_one(tmp_path: Path) -> None:
    with (
        region(tmp_path, servers.relay(), servers.derper(generator.build_derper())) as (ours, theirs),
        ExitStack() as stack,
    ):
        eventually(lambda: ours.metrics()["relay_mesh_links"] == 1, 20)
        alice, bob = login(ours, stack), login(theirs, stack)
        eventually(lambda: reaches(alice, bob), 20)
        eventually(lambda: reaches(bob, alice), 20)
        bob.close()
        assert alice.expect(derp.Gone) == derp.Gone(bob.key, wire.GONE_DISCONNECTED)


def test_a_relay_that_comes_back_is_found_again(tmp_path: Path) -> None:
    made = Region(tmp_path, 2)
    with made.relay(1, servers.relay()) as b, ExitStack() as stack:
        bob = login(b, stack)
        with made.relay(0, servers.relay()) as a:
            alice = login(a, stack)
            eventually(lambda: reaches(alice, bob), 20)
            eventually(lambda: reaches(bob, alice), 20)
            a.running.process.kill()
            a.running.process.wait()
            assert bob.expect(derp.Gone) == derp.Gone(alice.key, wire.GONE_DISCONNECTED)
        with made.relay(0, servers.relay()) as a:
            alice = login(a, stack)
            eventually(lambda: reaches(bob, alice), 20)
            eventually(lambda: reaches(alice, bob), 20)


def test_who_has_not_the_key_is_no_relay(tmp_path: Path) -> None:
    with (
        region(tmp_path, servers.relay()) as (live,),
        live.connect(info=ClientInfo(mesh_key=bytes([7]) * 32)) as peer,
    ):
        peer.client.watch()
        peer.flush()
        peer.wait_hangup()


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ("derp.example.org", ("derp.example.org", 443, "derp.example.org")),
        ("derp.example.org:8443", ("derp.example.org", 8443, "derp.example.org")),
        ("derp.example.org/10.0.0.7", ("derp.example.org", 443, "10.0.0.7")),
        ("derp.example.org:8443/10.0.0.7", ("derp.example.org", 8443, "10.0.0.7")),
        ("[2001:db8::1]:8443", ("[2001:db8::1]", 8443, "2001:db8::1")),
    ],
)
def test_mesh_with_entries(entry: str, place: tuple[str, int, str]) -> None:
    assert mesh.parse_mesh_with(entry) == place
