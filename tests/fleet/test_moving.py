"""A host of a rollout that moves: its nodes leave it first, and the map follows at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from control.served import Unknown
from engine.generations import Generation, History, UnconfirmedChanges
from engine.login import Unreachable
from engine.rollout.machine import begin, step
from engine.rollout.state import EventKind, RolloutEvent
from engine.run import Outcome
from engine.session import Locked
from fleet.rollout import cutting, moving, wave
from fleet.rollout.ledger import new_head
from fleet.rollout.under_way import UnderWay
from fleet.shared.confirm import ROLLOUT
from fleet.shared.fleet import Fleet
from fleet.shared.seen import former, moved, settings
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.rollout import RolloutPolicy
from tests.control.test_headscale import site_of
from tests.fleet.generations import known
from tests.fleet.test_withdraw import MAP, ONLY_SG, World, make_world, proof
from tests.support.facts import DEBIAN_12

HK1 = site_of().hosts["hk1"]
ELSEWHERE = HK1.model_copy(update={"ports": HK1.ports.model_copy(update={"https": 8443})})
BEFORE = Generation(number=3, plan="sha256:old", about={"seen": settings(ELSEWHERE)})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(site_of(), tmp_path, monkeypatch)


@pytest.fixture
def under_way(world: World, monkeypatch: pytest.MonkeyPatch) -> UnderWay:
    """A rollout of hk1, which moves and is being cut over, and of sg1."""
    policy = RolloutPolicy()
    found = UnderWay(world.fleet, new_head(["hk1", "sg1"], policy), begin(["hk1", "sg1"], policy), fence=7)
    for name in ("hk1", "sg1"):
        event = RolloutEvent(
            kind=EventKind.PREPARED, host=name, changes=1, generation=3, clients=1, moves=name == "hk1"
        )
        found.state = step(found.state, event)
    monkeypatch.setattr(
        UnderWay, "climbed", lambda _, hosts: [proof(one.name, ok=one.name in world.proved) for one in hosts]
    )
    return found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"domain": "hk2.example.org"}, ["hosts.hk1.domain was hk1.example.org, and is hk2.example.org"]),
        ({"flavour": "docker"}, ["hosts.hk1.flavour was python, and is docker"]),
        ({"ports": ELSEWHERE.ports}, ["hosts.hk1.ports.https was 443, and is 8443"]),
        ({"ports": HK1.ports.model_copy(update={"metrics": 9999})}, []),
        ({"region": HK1.region.model_copy(update={"name": "Kowloon"})}, []),
    ],
)
def test_a_host_moves_when_nodes_find_it_elsewhere(change: dict[str, Any], words: list[str]) -> None:
    assert moved(HK1.model_copy(update=change), HK1) == words


def test_its_nodes_leave_it_first_and_its_region_stays(under_way: UnderWay, world: World) -> None:
    world.homes = [["laptop"], []]
    moving.leave(under_way, HK1)
    assert (world.done, world.map, world.notes) == (["stop hk1"], MAP, [b"drained\n"])
    assert world.slept == 1


def test_it_stays_while_no_relay_of_the_map_is_proved(under_way: UnderWay, world: World) -> None:
    world.proved = set()
    with pytest.raises(moving.NotLeft, match="the only relay of this site that nodes have"):
        moving.leave(under_way, HK1)
    assert world.done == []


def test_without_another_relay_or_a_region_it_is_not_stopped(under_way: UnderWay, world: World) -> None:
    world.map = ONLY_SG
    moving.leave(under_way, HK1)
    world.map, hosts = MAP, under_way.state.hosts
    under_way.state = replace(under_way.state, hosts={**hosts, "sg1": replace(hosts["sg1"], generation=0)})
    moving.leave(under_way, HK1)
    assert world.done == []


def history_of(*generations: Generation, unconfirmed: str = "") -> History:
    return known(*generations, left=UnconfirmedChanges(plan=unconfirmed))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stand in for the host: `steps` are the calls, `history` its answer.

    `fails` is raised in place of the cut-over, `is_back` answers the way back.
    """
    said = SimpleNamespace(steps=[], history=history_of(BEFORE), fails=None, is_back=True)

    def run_confirmed(_: Fleet, host: Host, __: Any, judge: Any) -> Outcome:
        assert not judge.is_up  # it was stopped by us
        said.steps.append(("cut over", judge.before and judge.before.ok))
        if said.fails:
            raise said.fails
        judge.proof = proof(host.name, ok=True)
        return Outcome(host.name, "apply", {"changed": 1}, DEBIAN_12, Path("log"))

    def is_back(_: UnderWay, __: Host, ___: History, target: Generation, *, is_stopped: bool = False) -> bool:
        said.steps.append(("back", target.number, is_stopped))
        return bool(said.is_back)

    class Session(SimpleNamespace):
        def __enter__(self) -> Session:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(cutting, "run_confirmed", run_confirmed)
    monkeypatch.setattr(cutting, "_is_back", is_back)
    monkeypatch.setattr(cutting, "leave", lambda *_: said.steps.append("leave"))
    monkeypatch.setattr(
        cutting, "restore_region", lambda _, then: said.steps.append(("map", then.ports.https)) or ""
    )
    session = Session(history=lambda: said.history)
    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: session)
    return said


def test_it_is_cut_over_once_its_nodes_have_left(under_way: UnderWay, world: World, run: Any) -> None:
    """It was proved before it was stopped, so nothing is excused after its cut-over."""
    world.proved = {"hk1", "sg1"}
    assert cutting.cut_over(under_way, HK1).kind is EventKind.CONFIRMED
    assert run.steps == ["leave", ("cut over", True)]


@pytest.mark.parametrize(
    ("error", "is_back", "kind"),
    [
        (Locked("locked by bob"), True, EventKind.INCONCLUSIVE),
        (cutting.HasMoved("at 4"), True, EventKind.OVERTAKEN),
        (moving.NotLeft("phone did not find another home"), True, EventKind.INCONCLUSIVE),
        (Locked("locked by bob"), False, EventKind.STUCK),
        (Unreachable("gone"), True, EventKind.LOST),
    ],
)
def test_one_that_was_stopped_and_not_begun_comes_back(
    under_way: UnderWay, run: Any, error: DerpfleetError, is_back: bool, kind: EventKind
) -> None:
    run.fails, run.is_back = error, is_back
    assert cutting.cut_over(under_way, HK1).kind is kind
    assert (("back", 3, True) in run.steps) is (kind is not EventKind.LOST)


def test_a_lost_one_may_be_stopped_and_comes_back(under_way: UnderWay, run: Any) -> None:
    assert cutting.ask(under_way, HK1).kind is EventKind.AS_BEFORE
    assert run.steps == [("back", 3, True)]


def confirmed(under_way: UnderWay) -> None:
    for event in (
        RolloutEvent(kind=EventKind.CONFIRMED, host="hk1"),
        RolloutEvent(kind=EventKind.REGISTERED, hosts=("hk1",)),
    ):
        under_way.state = step(under_way.state, event)


def test_one_in_the_map_goes_back_as_it_came(under_way: UnderWay, run: Any) -> None:
    confirmed(under_way)
    ours = Generation(number=4, about={ROLLOUT: under_way.id})
    run.history = history_of(ours, BEFORE)
    assert cutting.take_back(under_way, HK1).kind is EventKind.UNDONE
    assert run.steps == ["leave", ("back", 3, True), ("map", 8443)]
    run.is_back = False
    assert cutting.take_back(under_way, HK1).kind is EventKind.STUCK


def test_the_map_follows_one_that_was_lost_on_its_way_back(under_way: UnderWay, run: Any) -> None:
    confirmed(under_way)
    ours = Generation(number=4, about={ROLLOUT: under_way.id})
    run.history = history_of(replace(BEFORE, number=5), ours, BEFORE)
    assert cutting.ask(under_way, HK1).kind is EventKind.AS_BEFORE
    assert run.steps == [("back", 5, True), ("map", 8443)]


@pytest.mark.parametrize("error", [None, DerpfleetError("headscale is away")])
def test_its_former_region_comes_back(
    under_way: UnderWay, monkeypatch: pytest.MonkeyPatch, error: DerpfleetError | None
) -> None:
    put: list[Host] = []

    def put_into_map(_: Fleet, __: Any, hosts: list[Host]) -> None:
        put.extend(hosts)
        if error:
            raise error

    monkeypatch.setattr(moving, "put_into_map", put_into_map)
    why = moving.restore_region(under_way, former(HK1, BEFORE.about["seen"]))
    assert [one.ports.https for one in put] == [8443]
    assert ("headscale is away" in why) is bool(error)


@pytest.mark.parametrize(
    ("name", "served", "generation", "why"),
    [
        ("hk1", None, 3, "clients get these regions once you have put them into their map: hk1"),
        ("sg1", None, 0, "clients get these regions once you have put them into their map: sg1"),
        ("sg1", None, 3, ""),
        ("hk1", Unknown("away"), 3, ""),
    ],
)
def test_a_region_that_a_person_has_to_put_into_the_map(
    under_way: UnderWay,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    served: Unknown | None,
    generation: int,
    why: str,
) -> None:
    hosts = under_way.state.hosts
    known = {**hosts, name: replace(hosts[name], generation=generation)}
    under_way.state = replace(under_way.state, hosts=known)
    under_way.proofs[name] = proof(name, ok=True)
    monkeypatch.setattr(wave, "put_into_map", lambda *_: served)
    monkeypatch.setattr(wave, "compare_map", lambda *_: True)
    event = wave.register_wave(under_way, [under_way.host(name)])
    assert (event.kind, event.hosts, event.why) == (EventKind.REGISTERED, (name,), why)
