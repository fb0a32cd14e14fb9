"""Somebody on the way lets the first connection pass, and answers all others himself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from probe.keys import new_prover
from probe.proof import Proof
from probe.target import Target
from probe.verify import verify
from tests.probe.faulty_servers import FaultyRelay, in_the_middle, serving
from tests.probe.seeding import HASTE, Stage
from tests.probe.servers import LOOPBACK

PROBE = Path(__file__).parents[2] / "probe"


def pinned(stage: Stage) -> Target:
    return stage.pinned_front()


def by_a_ca(stage: Stage) -> Target:
    return stage.healthy()


@pytest.mark.parametrize("target_of", [pinned, by_a_ca])
def test_nothing_is_said_to_who_answers_the_later_connections(
    target_of: Callable[[Stage], Target], stage: Stage
) -> None:
    attacker = FaultyRelay()

    async def climb() -> Proof:
        async with stage.open:
            prover = new_prover().at("hk1", "derper@sha256:1")
            real = replace(target_of(stage), prover=prover, expect_admission="verify")
            own = await stage.open.enter_async_context(serving(attacker, stage.issued(self_signed=True)))
            script = in_the_middle(real.https_port, own)
            between = await stage.open.enter_async_context(serving(script))
            return await verify(replace(real, https_port=between), patience=HASTE)

    proof = asyncio.run(climb())
    assert proof["tls"].status == "ok"
    assert attacker.introduced == []  # the mesh key would be in there
    broken = proof.failed_rung
    assert broken is not None and broken.name == "upgrade", proof.to_json()
    assert re.search("another machine on the way", broken.cause)
    assert broken.next.endswith("invoke verify --host hk1")


def test_an_address_of_another_machine_is_named(stage: Stage) -> None:
    """The name has both families, and the second address is not this host's."""

    async def both(_: str) -> list[str]:
        return [LOOPBACK, "::1"]

    async def climb() -> Proof:
        async with stage.open:
            other = stage.issued("other.test", self_signed=True)
            here = stage.healthy(ipv6="::1", resolve=both)
            at = ("::1", here.https_port)
            await stage.open.enter_async_context(serving(FaultyRelay(), other, at))
            return await verify(here, patience=HASTE)

    proof = asyncio.run(climb())
    broken = proof["upgrade"]
    assert broken.status == "failed", proof.to_json()
    assert broken.detail.startswith("::1: ")
    assert "another machine" in broken.cause
    assert re.search(r"set hosts.hk1.ipv6 and the AAAA record .*, then invoke deploy --host hk1", broken.next)


def test_only_one_file_opens_tls() -> None:
    """Every stream under TLS comes from `probe.tls`, which has checked its certificate."""
    users = {path.name for path in PROBE.glob("*.py") if re.search(r"\bssl\b", path.read_text())}
    assert users == {"net.py", "tls.py"}
