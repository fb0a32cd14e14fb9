"""`invoke uninstall` removes everything of a relay out of service; before that it refuses."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from control.contract import Look
from control.served import Unknown
from engine.facts import Facts, Listener
from engine.report import Report
from engine.run import Job, Verb
from fleet import uninstall
from fleet.shared import step
from fleet.shared.fleet import Fleet
from fleet.uninstall import InService, UninstallRefused
from tests.roles.cases import facts_of, load

RELAY = Listener(
    proto="tcp", address="0.0.0.0", port=443, pid=7, program="python3", unit="derpfleet-relay.service"
)


@dataclass
class World:
    """Stand-ins for the hosts. `ran`: the jobs' verbs; `plans`: their resources' ids."""

    shown: io.StringIO
    run: Callable[..., int]
    look: Look | None = None
    facts: Facts = field(default_factory=lambda: facts_of("bare"))
    changed: int = 3
    ran: list[Verb] = field(default_factory=list)
    plans: list[set[str]] = field(default_factory=list)

    def converge(self, _: Any, job: Job, **__: Any) -> Any:
        self.plans.append({resource.id for resource in job.plan(SimpleNamespace(facts=self.facts))})
        self.ran.append(job.verb)
        counts = {"ok": 1, "changed": self.changed, "failed": 0, "skipped": 0}
        return SimpleNamespace(counts=counts, failures=[])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    host, site, _ = load("bare")
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    shown = io.StringIO()
    fleet = Fleet(site, Report(console=Console(file=shown, width=400)))

    def run(*, dry_run: bool = False, in_service: bool = False) -> int:
        return uninstall.uninstall(fleet, host, dry_run=dry_run, in_service=in_service)

    world = World(shown, run)
    monkeypatch.setattr(uninstall, "control_server", lambda _: SimpleNamespace(look=lambda: world.look))
    monkeypatch.setattr(step, "converge", world.converge)
    return world


def seen(*names: str) -> Look:
    return Look(program="headscale 0.27.1", served=Unknown("x"), in_map=set(names))


def test_everything_goes_and_it_is_said_what_stays(world: World) -> None:
    world.look, world.changed = seen("sg1"), 3
    assert world.run() == 0
    assert world.ran == [Verb.UNINSTALL]
    assert {"absent:/etc/derpfleet", "absent:/opt/derpfleet", "absent:/var/lib/derpfleet"} <= world.plans[0]
    assert "What stays: packages" in world.shown.getvalue()


def test_a_host_that_has_nothing_of_it_is_said_to_have_nothing(world: World) -> None:
    world.look, world.changed = seen("sg1"), 0
    assert world.run() == 0
    assert "nothing to do" in world.shown.getvalue()
    assert "What stays" not in world.shown.getvalue()


def test_a_region_in_the_map_is_withdrawn_first(world: World) -> None:
    world.look = seen("hk1")
    with pytest.raises(InService) as refused:
        world.run()
    assert "headscale 0.27.1" in refused.value.why
    assert refused.value.next.startswith("invoke withdraw --host hk1")
    assert world.ran == []


@pytest.mark.parametrize("look", [seen("hk1"), None])
def test_the_only_relay_goes_when_it_is_asked_for(world: World, look: Look | None) -> None:
    world.look = look
    world.facts = replace(world.facts, listening=(*world.facts.listening, RELAY))
    assert world.run(in_service=True) == 0
    assert ("stays there" in world.shown.getvalue()) is (look is not None)


def test_where_the_map_is_not_known_a_relay_that_runs_is_in_service(world: World) -> None:
    world.facts = replace(world.facts, listening=(*world.facts.listening, RELAY))
    with pytest.raises(InService) as refused:
        world.run()
    assert "443/tcp" in refused.value.why
    world.look = seen()  # known, and the relay is not in it: it was never proved
    assert world.run() == 0


@pytest.mark.parametrize(("changed", "code"), [(3, 10), (0, 0)])
def test_a_dry_run_only_compares(world: World, changed: int, code: int) -> None:
    world.changed = changed
    assert world.run(dry_run=True) == code
    assert world.ran == [Verb.CHECK]
    assert "What stays" not in world.shown.getvalue()


def test_a_configuration_of_others_that_is_broken_is_not_touched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roles.absence_refusals", lambda *_: ["nginx is broken"])
    with pytest.raises(UninstallRefused) as refused:
        world.run()
    assert refused.value.why == "nginx is broken" and "invoke uninstall" in refused.value.next
    assert world.ran == []
