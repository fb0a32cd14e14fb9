"""A healthy relay proves, with any front and any kind of admission; and many relays at once."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest

from control.served import Map, Unknown, Unreadable
from fleet.shared.parts import deploy_part
from inventory.secrets import Secret
from lab.delaying import delaying
from probe import packets
from probe.cutover import known_clients
from probe.derpmap import with_map
from probe.keys import Prover, new_prover
from probe.latency import measure_all
from probe.net import NoRoute, Patience
from probe.proof import LADDER, Proof, Rung
from probe.target import Target
from probe.verify import prove, verify
from relay.keys.meta_certificate import new_meta_cert, pem_of
from tests.probe.authority import Authority, Issued
from tests.probe.faulty_servers import FaultyRelay, answering, serving
from tests.probe.servers import DOMAIN, HK1, LOOPBACK, OURS, Backend, Front, backend, free_port, nginx, target

ALWAYS_SKIPPED = {
    "stun6": "no address of that family",
    "admission": "only the relay's own host",
    "idle": "--thorough",
    "map": "no map given",
}
VERIFYING = ("-verify-client-url", "http://127.0.0.1:9/verify", "-verify-client-url-fail-open=false")


def status(proof: Proof) -> dict[str, str]:
    return {rung.name: rung.status for rung in proof.rungs}


@pytest.fixture
def healthy(fronted: tuple[int, int], relay: Backend, authority: Authority) -> Target:
    return target(*fronted, relay.stun, ca=authority.ca)


def test_a_relay_behind_nginx(healthy: Target) -> None:
    seen: list[Rung] = []
    proof = asyncio.run(verify(healthy, on_rung=seen.append))
    assert proof.ok, proof.to_json()
    assert proof.packets_passed
    assert [rung.name for rung in proof.rungs] == list(LADDER)
    assert {
        rung.name: rung.detail for rung in proof.rungs if rung.status != "ok"
    }.keys() == ALWAYS_SKIPPED.keys()
    assert all(ALWAYS_SKIPPED[rung.name] in rung.detail for rung in proof.rungs if rung.status != "ok")
    assert sorted(rung.name for rung in seen) == sorted(LADDER)
    figures = proof["packets"].data["bytes"]
    assert [(size, each["packets"]) for size, each in figures.items()] == [
        ("32", 10),
        ("1280", 10),
        ("65536", 2),
    ]
    assert all(0 < each["min_ms"] <= each["median_ms"] for each in figures.values())
    assert proof["stun4"].data["mapped"] == LOOPBACK
    assert proof["tls"].data["certificates"] == 2
    assert 79 < proof["tls"].data["days_left"] <= 80


def test_a_proof_survives_json(healthy: Target) -> None:
    [proof] = prove([healthy])
    again = Proof.from_json(json.loads(json.dumps(proof.to_json())))
    assert again.to_json() == proof.to_json()
    assert again.ok


def test_a_relay_with_its_own_tls_and_the_fast_start(
    command: tuple[str, ...], authority: Authority, good: Issued, tmp_path: Path
) -> None:
    (tmp_path / f"{DOMAIN}.crt").write_bytes(good.chain.read_bytes())
    (tmp_path / f"{DOMAIN}.key").write_bytes(good.key.read_bytes())
    with backend(command, tmp_path / "relay", "-certmode", "manual", "-certdir", str(tmp_path)) as running:
        [proof] = prove([target(running.port, None, running.stun, ca=authority.ca)])
    assert proof.ok, proof.to_json()
    assert proof.packets_passed
    assert proof["tls"].data["fast_start"]
    assert "fast start" in proof["upgrade"].detail
    assert proof["generate_204"].status == proof["tcp80"].status == "skipped"


def test_ours_and_derper_behind_nginx(
    command: tuple[str, ...], authority: Authority, good: Issued, tmp_path: Path
) -> None:
    with (
        backend(command, tmp_path / "relay") as running,
        nginx(Front.of(good), running, tmp_path / "front") as (https, http),
    ):
        [proof] = prove([target(https, http, running.stun, ca=authority.ca)])
    assert proof.ok and proof.packets_passed, proof.to_json()


def test_a_pinned_certificate(authority: Authority, relay: Backend, tmp_path: Path) -> None:
    import hashlib
    import ssl

    lone = authority.issue(LOOPBACK, self_signed=True)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(lone.chain.read_text())).hexdigest()
    with nginx(Front.of(lone), relay, tmp_path / "front") as (https, http):
        [proof] = prove([target(https, http, relay.stun, domain=LOOPBACK, pin=pin)])
    assert proof.ok, proof.to_json()
    assert "pinned" in proof["tls"].detail


def test_both_families_at_once(authority: Authority, good: Issued, relay: Backend, tmp_path: Path) -> None:
    with nginx(Front.of(good), relay, tmp_path / "front", "[::1]") as (https, http):
        [proof] = prove([target(https, http, relay.stun, ca=authority.ca, ipv6="::1", resolve=both)])
    assert "::1" in proof["upgrade"].detail
    assert proof["packets"].status == "ok"


async def both(_: str) -> list[str]:
    return [LOOPBACK, "::1"]


def test_no_ipv6_on_this_controller_is_no_fault_of_the_relay(
    healthy: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    from probe import tcp

    real = tcp.connect

    async def connect(address: str, port: int) -> socket.socket:
        if ":" in address:
            raise NoRoute(f"this controller has no route to {address}")
        return await real(address, port)

    async def named(_: str) -> list[str]:
        return [LOOPBACK, "2001:db8::1"]

    monkeypatch.setattr(tcp, "connect", connect)
    [proof] = prove([replace(healthy, ipv6="2001:db8::1", resolve=named, stun_port=None)])
    assert proof.ok, proof.to_json()
    assert (
        proof["tcp"].warning == "2001:db8::1 not tried: this controller has no route in that address family"
    )
    assert "2001:db8::1" not in proof["upgrade"].detail


def test_the_prover_enters_a_verifying_relay_by_the_mesh_key(
    command: tuple[str, ...], authority: Authority, good: Issued, tmp_path: Path
) -> None:
    prover = new_prover().at("hk1", "derper@sha256:1")
    assert prover.mesh_key
    (tmp_path / "mesh.key").write_text(prover.mesh_key.reveal() + "\n")
    flags = ("-mesh-psk-file", str(tmp_path / "mesh.key"))
    assert_known(prover, (*command, *flags), authority, good, tmp_path)


def test_the_prover_enters_our_relay_by_public_keys(
    authority: Authority, good: Issued, tmp_path: Path
) -> None:
    """A mesh key in the file of an earlier derper is not the relay's."""
    prover = new_prover()
    left = tmp_path / "home" / "keys" / "derp-mesh.key"
    left.parent.mkdir(parents=True)
    left.write_text("ab" * 32 + "\n")
    (tmp_path / "prober.keys").write_text("".join(f"{key}\n" for key in prover.public))
    at_home = ("env", f"HOME={tmp_path / 'home'}", *OURS)
    flags = ("-prober-keys", str(tmp_path / "prober.keys"), "-mesh-psk-file=")
    assert_known(prover, (*at_home, *flags), authority, good, tmp_path)
    with ExitStack() as stack:
        running = stack.enter_context(backend((*at_home, *flags), tmp_path / "again", *VERIFYING))
        https, http = stack.enter_context(nginx(Front.of(good), running, tmp_path / "again"))
        known = target(https, http, running.stun, ca=authority.ca, expect_admission="verify")
        [proof] = prove([replace(known, prover=replace(prover, mesh_key=Secret("ab" * 32)))])
    assert proof["handshake"].detail == "the prover's own keys were refused", proof.to_json()


def assert_known(
    prover: Prover, command: tuple[str, ...], authority: Authority, good: Issued, folder: Path
) -> None:
    """Check that a verifying relay admits the prover, and nobody without its keys."""
    with ExitStack() as stack:
        running = stack.enter_context(backend(command, folder / "relay", *VERIFYING))
        https, http = stack.enter_context(nginx(Front.of(good), running, folder / "front"))
        verifying = target(https, http, running.stun, ca=authority.ca, expect_admission="verify")
        with_key, without = prove([replace(verifying, prover=prover), verifying])
    assert with_key.ok and with_key.packets_passed, with_key.to_json()
    assert with_key["handshake"].detail == "two known keys admitted, a stranger refused"
    assert without.ok and not without.packets_passed
    assert "registered nodes only" in without["packets"].detail


def test_an_unknown_relay_may_be_open_or_not(
    healthy: Target, closed: Backend, good: Issued, tmp_path: Path
) -> None:
    with nginx(Front.of(good), closed, tmp_path / "front") as (https, http):
        unknown = replace(healthy, expect_admission="unknown", deploy=None)
        one, other = prove(
            [unknown, replace(unknown, https_port=https, http_port=http, stun_port=closed.stun)]
        )
    assert one.ok and one.packets_passed
    assert other.ok and not other.packets_passed
    assert other["handshake"].detail.startswith("a stranger's key refused")


def test_pings_of_the_relay_are_answered(healthy: Target, good: Issued) -> None:
    relay = FaultyRelay(pings=True)

    async def climb() -> Proof:
        async with serving(relay, good) as port:
            return await verify(replace(healthy, https_port=port))

    assert asyncio.run(climb()).ok
    assert relay.pongs > 10


def test_a_network_failure_of_any_kind_is_a_broken_rung(
    healthy: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("probe.verify.check_probe", fail)
    [proof] = prove([healthy])
    assert proof.failed_rung is not None
    assert (proof.failed_rung.name, proof.failed_rung.detail) == ("probe", "Input/output error")


@pytest.mark.parametrize(("broken", "see"), [("tls", "TLS"), ("tcp", "TCP, https port")])
def test_a_silent_stun_is_no_fault_of_its_own_while_the_front_is_broken(
    healthy: Target, broken: str, see: str
) -> None:
    faults = {"tls": {"ca": None}, "tcp": {"https_port": free_port()}}

    async def climb() -> Proof:
        async with answering(lambda *_: None) as silent:
            return await verify(
                replace(healthy, stun_port=silent, **faults[broken]), patience=Patience(stun_s=0.3)
            )

    proof = asyncio.run(climb())
    assert proof.failed_rung is not None
    assert proof.failed_rung.name == broken
    assert proof["stun4"].status == "skipped"
    assert proof["stun4"].detail.endswith(f"keeps silent, see {see}")


def test_clients_make_no_fast_start_in_tls_12(
    authority: Authority, good: Issued, relay: Backend, tmp_path: Path
) -> None:
    """A proxy that serves the fast start's certificate does no harm there."""
    chain = tmp_path / "meta.chain"
    chain.write_text(good.chain.read_text() + pem_of(new_meta_cert(bytes(range(32)), 1.8e9)))
    front = Front(chain, good.key, tls_more="ssl_protocols TLSv1.2;")
    with nginx(front, relay, tmp_path / "front") as (https, http):
        [proof] = prove([target(https, http, relay.stun, ca=authority.ca)])
    assert proof.ok, proof.to_json()
    assert proof["tls"].data["version"] == "TLSv1.2"
    assert not proof["tls"].data["fast_start"]


def test_a_relay_of_others_may_leave_port_80_closed(healthy: Target) -> None:
    [proof] = prove([replace(healthy, deploy=None, http_port=free_port())])
    assert proof.ok
    assert proof["tcp80"].detail.endswith("right only if the map says canport80: false")
    assert proof["generate_204"].detail == "needs TCP, http port"


def test_without_a_front_it_is_the_relay_that_has_to_be_fixed(healthy: Target) -> None:
    bare = partial(deploy_part, HK1.model_copy(update={"front": "none"}))
    [proof] = prove([replace(healthy, fronted=False, deploy=bare, https_port=free_port())])
    assert proof.failed_rung is not None
    assert proof.failed_rung.next == "invoke deploy --host hk1 --only role:relay"


def test_thorough_holds_the_line(healthy: Target) -> None:
    [proof] = prove([healthy], thorough=True, patience=Patience(idle_s=1.0))
    assert proof["idle"].status == "ok"
    assert proof["idle"].detail.startswith("1 s of silence survived")


@pytest.mark.parametrize(
    ("alive_s", "detail"), [(0.3, "keep-alive after 0 s, packets still pass"), (0, "no keep-alive in 0 s")]
)
def test_keep_alives_are_heard_or_missed(
    alive_s: float, detail: str, healthy: Target, good: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "_KEEP_ALIVE_S", 0.2)

    async def climb() -> Proof:
        async with serving(FaultyRelay(alive_s=alive_s), good) as port:
            return await verify(
                replace(healthy, https_port=port), thorough=True, patience=Patience(idle_s=0.4)
            )

    proof = asyncio.run(climb())
    assert (proof["idle"].status == "ok") == (alive_s > 0)
    assert re.search(detail, proof["idle"].detail)


def test_the_served_map_is_compared_with_what_was_proved(healthy: Target) -> None:
    node = {
        "Name": "900a",
        "RegionID": 900,
        "HostName": DOMAIN,
        "DERPPort": healthy.https_port,
        "STUNPort": healthy.stun_port,
        "CanPort80": True,
    }
    served = {"Regions": {"900": {"RegionID": 900, "Nodes": [node]}}}
    [right] = prove([healthy], served=served)
    assert right["map"].status == "ok", right["map"]
    node["STUNPort"] = 0
    [wrong] = prove([healthy], served=served)
    assert wrong.failed_rung is not None
    assert wrong.failed_rung.name == "map"
    assert f"STUN port is 0, real is {healthy.stun_port}" in wrong.failed_rung.detail
    assert with_map(right, healthy, Map(served))["map"].detail == wrong["map"].detail
    unknown = with_map(right, healthy, Unknown("headscale is out of reach"))
    assert unknown["map"] == Rung("map", "skipped", "headscale is out of reach")
    assert unknown.ok
    unreadable = with_map(right, healthy, Unreadable("derp.yaml: line 3: x", "malformed", "correct it"))
    assert not unreadable.ok and unreadable.failed_rung == unreadable["map"]
    assert unreadable["map"].next == "correct it; then invoke verify --host hk1"


@pytest.fixture
def far(healthy: Target) -> Iterator[tuple[Target, list[object]]]:
    """The healthy relay 100 ms away, and the proxies that count."""
    assert healthy.http_port and healthy.stun_port
    with ExitStack() as stack:
        https = stack.enter_context(delaying((LOOPBACK, healthy.https_port), rtt_s=0.1))
        http = stack.enter_context(delaying((LOOPBACK, healthy.http_port), rtt_s=0.1))
        stun = stack.enter_context(delaying((LOOPBACK, healthy.stun_port), rtt_s=0.1, udp=True))
        yield (
            replace(healthy, https_port=https.port, http_port=http.port, stun_port=stun.port),
            [https, http, stun],
        )


def test_round_trips_are_few(far: tuple[Target, list[object]]) -> None:
    """Three connections to the https port: TCP, TLS, /derp/probe; and twice TCP, TLS, upgrade,
    login and three sizes of packets."""
    distant, (https, http, _) = far
    [proof] = prove([distant])
    assert proof.ok, proof.to_json()
    counts = https.counts()  # type: ignore[attr-defined]  # a counting server
    assert (counts.connections, http.counts().connections) == (3, 1)  # type: ignore[attr-defined]  # as above
    assert counts.turns <= 3 + 2 * 7
    assert proof["packets"].data["bytes"]["32"]["min_ms"] >= 100
    # A proof that is whole has it.
    assert measure_all([distant])["hk1"].stun_ms >= 100  # type: ignore[operator]


def test_clients_that_leave_are_not_counted(far: tuple[Target, list[object]], relay: Backend) -> None:
    """The relay is 50 ms away, and the next question to its host may be how many it has."""

    def counted() -> int | None:
        with urlopen(f"http://{LOOPBACK}:{relay.port}/metrics") as page:
            return known_clients(page.read().decode())

    for patience, clients in ((Patience(), 2), (Patience(leave_s=10), 0)):
        [proof] = prove([far[0]], patience=patience)
        assert (proof.ok, counted()) == (True, clients)


def test_many_at_once(healthy: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = [replace(healthy, name=f"hk{number}") for number in range(20)]
    seen: list[tuple[str, str]] = []
    proofs = prove(targets, on_rung=lambda one, rung: seen.append((one.name, rung.name)))
    assert [proof.target for proof in proofs] == [one.name for one in targets]
    assert all(proof.ok for proof in proofs)
    assert len(seen) == 20 * len(LADDER)
