"""All hosts of a rollout go back to their states from before it, or none does."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.generations import Generation, History, UnconfirmedChanges
from engine.login import Login, Unreachable
from engine.rollout.state import ActionKind, HostState, RolloutEvent
from fleet import rollout as verb
from fleet.rollout import going_back
from fleet.rollout.going_back import CannotGoBack, take_all_back
from fleet.shared.confirm import ROLLOUT
from fleet.shared.fleet import Fleet
from fleet.shared.options import one_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from tests.engine.simulated import NEW, OLD, SimulatedHost, world_of
from tests.fleet.generations import known
from tests.fleet.test_rollout import POLICY, Desk

ID = "2026-11-29T14-02-11Z-7f3a"
BEFORE = Generation(number=3, plan="old", verb="deploy", at=1.0)


def ours(number: int = 4, *, at: float = 9.0, verb: str = "rollout") -> Generation:
    return Generation(number=number, plan="new", verb=verb, at=at, about={ROLLOUT: ID})


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the desk of a site of three hosts. h2 was confirmed first, h1 has no part in it."""
    world = world_of([SimulatedHost(truth=NEW, in_map=NEW) for _ in range(3)], POLICY)
    world.hosts["h1"].truth = OLD
    desk: Any = Desk(tmp_path, world, monkeypatch, json_lines=False)
    monkeypatch.setattr(going_back, "leased", desk.leased)
    desk.histories = {
        "h0": known(ours(at=20.0), BEFORE),
        "h1": known(BEFORE),
        "h2": known(ours(5, at=10.0), ours(4, at=9.0), BEFORE),
    }

    def session(_: Fleet, login: Login, __: Any) -> Any:
        found = desk.histories[login.name]
        if isinstance(found, Exception):
            raise found
        return nullcontext(SimpleNamespace(history=lambda: found))

    monkeypatch.setattr(Fleet, "session_for_reading", session)
    return desk


def test_all_of_its_hosts_go_back_newest_first(desk: Any) -> None:
    assert take_all_back(desk.fleet(), ID, dry_run=False) == 0
    assert desk.end() == {"h2": HostState.UNDONE, "h0": HostState.UNDONE}
    assert [line["host"] for line in desk.lines[1:]] == ["h0", "h2"]
    assert {host.truth for host in desk.world.hosts.values()} == {OLD}
    shown = desk.shown.getvalue()
    assert "generation 5 (1970-01-01 00:00) → 3 (1970-01-01 00:00)" in shown
    assert "2 undone · exit 0" in shown
    assert "the next deploy or rollout brings the hosts to it again" in shown


def test_a_dry_run_shows_it(desk: Any) -> None:
    assert take_all_back(desk.fleet(), ID, dry_run=True) == 10
    assert desk.shown.getvalue().count("going back") == 2
    assert (desk.lines, desk.world.hosts["h0"].truth) == ([], NEW)


def test_another_controller_goes_on_with_it(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    patched = verb._OF_ONE[ActionKind.TAKE_BACK]

    def lose(under_way: Any, host: Host) -> RolloutEvent:
        desk.lost = host.name == "h2"
        return patched(under_way, host)

    monkeypatch.setitem(verb._OF_ONE, ActionKind.TAKE_BACK, lose)  # type: ignore[arg-type]  # of the tests
    assert take_all_back(desk.fleet(), ID, dry_run=False) == 6
    desk.lost = False
    with pytest.raises(CannotGoBack, match="a rollout has not ended"):
        take_all_back(desk.fleet(), ID, dry_run=False)
    assert desk.resume() == 0
    assert set(desk.end().values()) == {HostState.UNDONE}


def test_a_host_that_is_as_before_already_is_left_alone(desk: Any) -> None:
    back = Generation(number=6, plan="old", verb="rollback", at=30.0)
    desk.histories["h0"] = known(back, ours(), BEFORE)
    assert take_all_back(desk.fleet(), ID, dry_run=False) == 0
    assert desk.end() == {"h2": HostState.UNDONE}
    desk.histories["h2"] = known(back, ours(), BEFORE)
    assert take_all_back(desk.fleet(), ID, dry_run=False) == 0
    assert "Every host of that rollout is as it was before it." in desk.shown.getvalue()


LEFT = UnconfirmedChanges(plan="x", who="bob@desk")


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (known(ours(), BEFORE, left=LEFT), "h0 has changes of bob@desk that nobody has confirmed"),
        (known(ours()), "h0 has kept nothing from before"),
        (known(ours(), Generation(number=3, trouble="damaged")), "h0: damaged"),
        (known(Generation(number=5, plan="newer"), ours(), BEFORE), "h0 has changed since: it is at gener"),
        (known(ours(6, verb="rollback"), Generation(number=5), ours(), BEFORE), "h0 has changed since"),
    ],
)
def test_none_goes_back_while_one_cannot(desk: Any, history: History, why: str) -> None:
    desk.histories["h0"] = history
    with pytest.raises(CannotGoBack, match="not every host of the rollout can go back") as error:
        take_all_back(desk.fleet(), ID, dry_run=False)
    assert why in error.value.why
    assert desk.lines == []


def test_none_goes_back_while_one_cannot_be_asked(desk: Any) -> None:
    desk.histories["h1"] = Unreachable("no route")
    with pytest.raises(Unreachable):
        take_all_back(desk.fleet(), ID, dry_run=False)


def test_a_rollout_that_no_host_knows_is_refused(desk: Any) -> None:
    with pytest.raises(CannotGoBack, match="no host has a generation of the rollout other"):
        take_all_back(desk.fleet(), "other", dry_run=False)


@pytest.mark.parametrize("given", [{"--host": "", "--rollout": ""}, {"--host": "a", "--rollout": "b"}])
def test_a_host_or_a_rollout_goes_back(given: dict[str, str]) -> None:
    with pytest.raises(DerpfleetError, match="give one of --host and --rollout"):
        one_of(given)
    one_of(given | {"--host": ""} | {"--rollout": "b"})


def test_one_is_not_stopped_while_no_other_relay_is_proved(
    desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fleet.rollout import cutting

    why = "no other relay is proved"
    monkeypatch.setattr("fleet.rollout.under_way.UnderWay.unserved", lambda *_: why)
    monkeypatch.setitem(verb._OF_ONE, ActionKind.TAKE_BACK, cutting.take_back)  # type: ignore[arg-type]  # of the tests
    assert take_all_back(desk.fleet(), ID, dry_run=False) == 6
    assert f"h0: {why}" in desk.shown.getvalue()
