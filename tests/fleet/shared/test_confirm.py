"""The control of a verdict is another relay, proved as its own host has it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.generations import Generation, History, UnconfirmedChanges
from engine.report import Report
from fleet.shared import confirm, evidence, prove, seen
from fleet.shared.confirm import Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.seen import settings
from fleet.shared.verdict import TRIES, Conclusion, Evidence
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.proof import Proof
from probe.target import Target
from probe.web import authority
from tests.control.test_headscale import site_of
from tests.fleet.generations import Armed, outcome
from tests.fleet.test_withdraw import proof


class World:
    """Two hosts, both with other ports in the site file than hk1, which waits, has yet.

    `asked`: the hosts whose history was read. `climbed`: hk1 as it was proved.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **edit: int) -> None:
        site = site_of()
        hosts = {name: with_ports(host, **edit) for name, host in site.hosts.items()}
        self.fleet = Fleet(
            site.model_copy(update={"hosts": hosts}), Report(console=Console(file=io.StringIO(), width=400))
        )
        self.asked, self.climbed = list[str](), list[Host]()
        self.old, self.new = site.hosts["hk1"], hosts["hk1"]
        generation = Generation(number=3, about={"seen": settings(self.old), seen.DERPER: "its own"})
        self.history = History(generations=(generation,), unconfirmed=UnconfirmedChanges())
        monkeypatch.setattr(Fleet, "runs", folder)
        monkeypatch.setattr(Fleet, "session_for_reading", self.session)
        monkeypatch.setattr(confirm, "climb", self.climb)
        monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"sg1": proof("sg1", ok=False)})
        monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
        self.was_proved("hk1", self.old)
        self.derpers = list[str]()
        monkeypatch.setattr(prove, "_prover_at", lambda _, __, derper: self.derpers.append(derper))

    def session(self, login: Any, _: object) -> Any:
        self.asked.append(login.name)
        return nullcontext(SimpleNamespace(history=lambda: self.history))

    def climb(self, _: Fleet, hosts: Sequence[Host], wanted: Sequence[Target]) -> list[Proof]:
        self.climbed += hosts
        assert [one.name for one in wanted] == ["hk1"]
        return [proof("hk1", ok=host.ports == self.old.ports) for host in hosts]

    def was_proved(self, name: str, host: Host) -> None:
        address = authority(host.domain, host.ports.https, 443)
        prove.keep(self.fleet, name, replace(proof(name, ok=True), address=address))

    def verdict(self) -> Conclusion | None:
        armed: Any = Armed(3)
        judge = Confirmation(self.fleet, self.fleet.site.hosts["sg1"], None)
        judge(outcome(), armed)
        assert armed.words[-1] == "back"
        return judge.verdict


def with_ports(host: Host, **edit: int) -> Host:
    return host.model_copy(update={"ports": host.ports.model_copy(update=edit)})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch, stun=3479)


@pytest.mark.parametrize("edit", [{"stun": 3479}, {"https": 8443}])
def test_a_relay_that_waits_for_a_new_site_file_is_the_control_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: dict[str, int]
) -> None:
    world = World(tmp_path, monkeypatch, **edit)
    assert world.verdict() is Conclusion.FAILED
    assert [host.ports for host in world.climbed] == [world.old.ports] * 3
    assert world.asked == ["hk1"]
    assert world.derpers == ["its own"] * 3


def test_one_without_a_generation_is_proved_as_the_site_file_has_it(world: World) -> None:
    world.history = History(generations=(), unconfirmed=UnconfirmedChanges())
    assert world.verdict() is Conclusion.INCONCLUSIVE
    assert [host.ports for host in world.climbed] == [world.new.ports] * 12


def test_one_that_cannot_be_asked_is_proved_as_the_site_file_has_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> Any:
        raise DerpfleetError("no connection")

    monkeypatch.setattr(Fleet, "session_for_reading", away)
    assert world.verdict() is Conclusion.INCONCLUSIVE
    assert [host.ports for host in world.climbed] == [world.new.ports] * 12


def test_one_that_was_not_proved_is_not_even_asked(world: World) -> None:
    prove.forget(world.fleet, world.old)
    assert world.verdict() is Conclusion.INCONCLUSIVE  # there is no control
    assert (world.asked, world.climbed) == ([], [])


def test_a_plan_that_is_left_in_any_case_is_not_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for the operator's front, which takes some minutes else."""
    prove.forget(world.fleet, world.old)
    proofs = list[None]()

    def broken(*_: object, **__: object) -> dict[str, Proof]:
        proofs.append(None)
        return {"sg1": proof("sg1", ok=False)}

    monkeypatch.setattr(confirm, "prove_hosts", broken)
    armed: Any = Armed(3)
    judge = Confirmation(world.fleet, world.fleet.site.hosts["sg1"], None, leaves=True)
    judge(outcome(), armed)
    assert (judge.verdict, armed.words[-1], len(proofs)) == (None, "leave", TRIES)
