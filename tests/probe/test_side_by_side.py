"""Proofs at the same time with the same keys: each judges its own packets only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.delaying import delaying
from probe.derp import ProbeClient
from probe.keys import new_prover
from probe.net import Patience
from probe.packets import Left, Way, make_packet, read_packet
from probe.proof import Broken, Proof
from probe.target import Target
from probe.verify import prove, verify
from relay.client import Alive, Client, Event, Gone, Health, Received
from relay.core.handshake import make_private_key
from tests.probe.authority import Authority, Issued
from tests.probe.faulty_servers import FaultyRelay, serving
from tests.probe.servers import LOOPBACK, OURS, Front, backend, nginx, target

VERIFYING = ("-verify-client-url", "http://127.0.0.1:9/verify", "-verify-client-url-fail-open=false")
ROUNDS = 8
# The packets are judged, not the machine's speed: ten proofs need seconds of CPU time.
PATIENCE = Patience(tcp_s=60, stun_s=60, tls_s=60, http_s=60, derp_s=60, packets_s=60)


@pytest.fixture(params=["mesh key", "prober keys"])
def verifying(
    authority: Authority, good: Issued, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Target]:
    """A relay that knows the prover, by a mesh key or by the two keys that all proofs share."""
    prover = new_prover()
    if request.param == "mesh key":
        prover = prover.at("hk1", "derper@sha256:1")
        assert prover.mesh_key
        (tmp_path / "mesh.key").write_text(prover.mesh_key.reveal() + "\n")
        flags = (*VERIFYING, "-mesh-psk-file", str(tmp_path / "mesh.key"))
    else:
        (tmp_path / "prober.keys").write_text("\n".join(prover.public) + "\n")
        flags = (*VERIFYING, "-prober-keys", str(tmp_path / "prober.keys"))
    with (
        backend(OURS, tmp_path / "relay", *flags) as running,
        nginx(Front.of(good), running, tmp_path / "front") as (https, http),
    ):
        yield target(
            https, http, running.stun, ca=authority.ca, expect_admission="verify", prover=prover
        )


def wrong(proofs: list[Proof]) -> list[object]:
    return [proof.failed_rung for proof in proofs if not (proof.ok and proof.packets_passed)]


def test_ten_proofs_at_once(verifying: Target) -> None:
    for _ in range(ROUNDS):
        assert wrong(prove([verifying] * 10, patience=PATIENCE)) == []


def test_ten_proofs_at_once_from_different_distances(verifying: Target) -> None:
    with ExitStack() as stack:
        far = []
        for number in range(10):
            place = (LOOPBACK, verifying.https_port)
            way = stack.enter_context(delaying(place, rtt_s=0.01 * (number + 1)))
            far.append(replace(verifying, name=f"from{number}", https_port=way.port))
        assert wrong(prove(far, patience=PATIENCE)) == []


def test_a_lost_packet_without_another_proof_is_the_relays_fault(verifying: Target, good: Issued) -> None:
    """Only packets of another proof are an excuse."""

    async def climb(foreign: bytes) -> Proof:
        number = count()
        relay = FaultyRelay(deliver=lambda packet: packet if next(number) % 5 else None, foreign=foreign)
        async with serving(relay, good) as port:
            return await verify(replace(verifying, https_port=port, prover=None, expect_admission="open"))

    assert asyncio.run(climb(make_packet(bytes(12), 7, 32)))["packets"].status == "ok"
    assert asyncio.run(climb(b""))["packets"].status == "failed"


def test_a_proof_that_was_seen_once_may_take_packets_later(verifying: Target, good: Issued) -> None:
    """Of the largest packets each way has one alone, so that no other may be seen meanwhile."""

    async def climb(foreign: bytes) -> Proof:
        large = Counter[bytes]()

        def deliver(packet: bytes) -> bytes | None:
            if len(packet) < 65_536:
                return packet
            relay.foreign = b""
            large[packet[:12]] += 1
            return packet if large[packet[:12]] % 2 == 0 else None

        relay = FaultyRelay(deliver=deliver, foreign=foreign)
        async with serving(relay, good) as port:
            return await verify(replace(verifying, https_port=port, prover=None, expect_admission="open"))

    assert asyncio.run(climb(make_packet(bytes(12), 7, 32)))["packets"].status == "ok"
    assert asyncio.run(climb(b""))["packets"].status == "failed"


def test_packets_of_old_versions_are_passed_over(verifying: Target, good: Issued) -> None:
    async def climb() -> Proof:
        async with serving(FaultyRelay(foreign=b"\x00"), good) as port:
            return await verify(replace(verifying, https_port=port, prover=None, expect_admission="open"))

    assert asyncio.run(climb())["packets"].status == "ok"


def test_a_packet_proves_itself() -> None:
    for size in (32, 1_280, 65_536):
        packet = make_packet(b"m" * 12, 3, size)
        assert len(packet) == size
        assert read_packet(packet) == (b"m" * 12, 3)
        assert read_packet(packet[:-1]) is None
        assert read_packet(b"!" + packet[1:]) is None
    assert read_packet(b"") is None


class Hushed:
    """A wire of which only the bytes' count is used."""

    def leave_out(self, count: int) -> None:
        pass


# A stand-in.
LEFT, RIGHT = (ProbeClient(Hushed(), Client(make_private_key())) for _ in range(2))  # type: ignore[arg-type]
KEYS = st.sampled_from([LEFT.key, RIGHT.key, bytes(32)])
PACKETS = st.binary(max_size=80) | st.builds(
    make_packet, st.sampled_from([LEFT.mark, RIGHT.mark, bytes(12)]), st.integers(0, 6), st.just(32)
)
EVENTS = (
    st.builds(Received, KEYS, PACKETS)
    | st.builds(Gone, KEYS, st.integers(0, 3))
    | st.just(Alive())
    | st.builds(Health, st.text())
)


@settings(suppress_health_check=[HealthCheck.differing_executors], max_examples=300)
@given(events=st.lists(EVENTS, max_size=20), sent=st.integers(0, 5))
def test_whatever_arrives_is_judged(events: list[Event], sent: int) -> None:
    way = Way(target(443, 80, 3478), LEFT, RIGHT, [32] * 5)
    for number in range(sent):
        way.note_sent(number, 32, 0.0)
    with suppress(Broken, Left):
        for event in events:
            way.take(event, 1.0)
    assert len(way.times[32]) <= sent
