"""`invoke rollout` over a simulated fleet: its ledger, its lease, its ends."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine.login import Unreachable
from engine.report import Report
from engine.rollout.state import ActionKind, EventKind, HostState, RolloutAction, RolloutEvent
from fleet import rollout as verb
from fleet.rollout.options import RolloutOptions, carry_out, chosen
from fleet.shared.errors import Interrupted, NoSuchHost
from fleet.shared.fleet import Fleet
from fleet.shared.last_rollout import LedgerUnreadable, replayed
from inventory.errors import DerpfleetError
from inventory.model import Host, Region, Site
from inventory.rollout import RolloutPolicy
from tests.engine.simulated import NEW, OLD, Killed, SimulatedHost, World, world_of
from tests.fleet.test_events import EVENTS, wrong

POLICY = RolloutPolicy(waves=("2", "50%", "rest"), soak_s=1)


class Desk:
    """Controllers of one site, one after the other. `lines`: the ledger beside the lease.

    `kill_at`: the controller dies before it writes that line. `lost`: the lease is.
    """

    def __init__(
        self, folder: Path, world: World, monkeypatch: pytest.MonkeyPatch, *, json_lines: bool
    ) -> None:
        self.world, self.lines, self.kill_at, self.lost = world, list[Any](), -1, False
        self.number, self.shown, self.runs = 40, io.StringIO(), 0
        hosts = [
            Host(
                name=name,
                domain=f"{name}.example.org",
                region=Region(id=900 + number % 100, code=name, name=name),
            )
            for number, name in enumerate(world.hosts)
        ]
        self.site = Site(path="site.yml", hosts={host.name: host for host in hosts}, known_hosts="none")
        self.hosts, self.folder, self.json_lines = hosts, folder, json_lines
        monkeypatch.setattr(Fleet, "runs", property(lambda _: self.folder / str(self.runs)))
        monkeypatch.setattr(verb, "leased", self.leased)
        monkeypatch.setattr(verb, "_OF_ONE", {kind: self.one(kind) for kind in verb._OF_ONE})
        monkeypatch.setattr(verb, "_OF_SEVERAL", {kind: self.several(kind) for kind in verb._OF_SEVERAL})

    @contextmanager
    def leased(self, _: Fleet, *, wait_s: int) -> Iterator[Any]:
        self.number += 1
        lease: Any = type("Held", (), {"lines": list(self.lines), "number": self.number, "note": self.note})
        yield lease

    def note(self, *lines: Mapping[str, Any], begins: bool = False) -> None:
        if self.lost:
            raise Unreachable("the connection was lost")
        if begins:
            self.lines.clear()
        for line in lines:
            if len(self.lines) == self.kill_at:
                self.kill_at = -1
                raise Killed
            self.lines.append(json.loads(json.dumps(line)))

    def one(self, kind: ActionKind) -> Any:
        return lambda under_way, host: self.several(kind)(under_way, [host])

    def several(self, kind: ActionKind) -> Any:
        def perform(under_way: Any, hosts: Sequence[Host]) -> RolloutEvent:
            action = RolloutAction(kind=kind, hosts=tuple(host.name for host in hosts))
            return self.world.perform(under_way.state, action)

        return perform

    def fleet(self) -> Fleet:
        self.runs += 1  # another controller, with records of its own
        report = Report(json_lines=self.json_lines, console=Console(file=self.shown, width=200))
        return Fleet(self.site, report)

    def begin(self, policy: RolloutPolicy = POLICY, **more: Any) -> int:
        return verb.rollout(self.fleet(), self.hosts, policy, wait_s=0, **more)

    def resume(self, kind: EventKind = EventKind.RESUMED) -> int:
        return verb.go_on(self.fleet(), kind, wait_s=0)

    def end(self) -> dict[str, HostState]:
        found = replayed(self.lines)
        assert found
        return {name: host.state for name, host in found[1].hosts.items()}


@pytest.fixture
def desk_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a desk of these hosts."""

    def make(hosts: Sequence[SimulatedHost], *, json_lines: bool = False) -> Desk:
        return Desk(tmp_path, world_of(hosts, POLICY), monkeypatch, json_lines=json_lines)

    return make


def fleet_of(total: int) -> list[SimulatedHost]:
    return [SimulatedHost(clients=number, like="ab"[number % 2]) for number in range(total)]


def test_a_good_rollout_confirms_all(desk_of: Any) -> None:
    desk = desk_of(fleet_of(7))
    assert desk.begin() == 0
    assert set(desk.end().values()) == {HostState.CONFIRMED}
    assert all(host.truth == NEW for host in desk.world.hosts.values())
    [ledger] = (desk.folder / "1" / "rollouts").iterdir()
    assert [json.loads(line) for line in ledger.read_text().splitlines()] == desk.lines
    assert ledger.stat().st_mode & 0o777 == 0o600
    shown = desk.shown.getvalue()
    assert shown.index("wave 1") < shown.index("plan") < shown.index("cut over")
    assert "7 confirmed · exit 0" in shown


@pytest.mark.parametrize(("total", "stride"), [(8, 1), (200, 97)])
def test_a_controller_killed_at_any_line_is_followed_by_another(
    desk_of: Any, total: int, stride: int
) -> None:
    """Another controller, without the records of the first, ends it in the same way."""
    calm = desk_of(fleet_of(total))
    calm.world.hosts["h5"].fault = EventKind.UNDONE
    code, wanted = calm.begin(), calm.end()
    for line in range(1, len(calm.lines), stride):
        desk = desk_of(fleet_of(total))
        desk.world.hosts["h5"].fault = EventKind.UNDONE
        desk.kill_at = line
        with pytest.raises(Killed):
            desk.begin()
        desk.world.settle_alone()
        assert (desk.resume(), desk.end()) == (code, wanted), line


def test_a_host_that_failed_is_not_tried_again_unasked(desk_of: Any) -> None:
    desk = desk_of(fleet_of(4))
    desk.world.hosts["h2"].fault = EventKind.UNDONE
    assert desk.begin() == 7
    seen: list[Mapping[str, str]] = []
    patched = verb._OF_ONE[ActionKind.PREPARE]

    def prepare(under_way: Any, host: Host) -> RolloutEvent:
        seen.append(under_way.head.refused)
        return patched(under_way, host)  # type: ignore[no-any-return]  # of the tests' own

    verb._OF_ONE[ActionKind.PREPARE] = prepare  # type: ignore[index]  # it is the tests' own
    desk.world.hosts["h2"].fault = EventKind.UNPREPARED  # as it is refused
    for _ in range(2):
        assert desk.begin() == 3
        assert seen.pop() == {"h2": "plan of h2"}
    desk.world.hosts["h2"].fault = None
    assert desk.begin(again=True) == 0
    assert seen.pop() == {}
    assert desk.begin() == 0
    assert seen.pop() == {}


def test_a_lost_lease_pauses(desk_of: Any) -> None:
    desk = desk_of(fleet_of(3))
    perform = desk.world.perform

    def losing(state: Any, action: RolloutAction) -> RolloutEvent:
        desk.lost = action.kind is ActionKind.CUT_OVER
        return perform(state, action)

    desk.world.perform = losing
    assert desk.begin() == 6
    assert "invoke rollout --resume" in desk.shown.getvalue()
    desk.lost, desk.world.perform = False, perform
    assert desk.resume() == 0


def test_one_that_is_interrupted_says_how_to_go_on_and_goes_on(desk_of: Any) -> None:
    desk = desk_of(fleet_of(3))
    perform = desk.world.perform

    def pressed(state: Any, action: RolloutAction) -> RolloutEvent:
        event = perform(state, action)
        if action.kind is ActionKind.CUT_OVER:
            raise Interrupted("interrupted", next="run it again")
        return event

    desk.world.perform = pressed
    with pytest.raises(Interrupted) as caught:
        desk.begin()
    assert caught.value.exit_code == 130
    assert "invoke rollout --resume" in caught.value.next
    desk.world.perform = perform
    assert desk.resume() == 0
    assert set(desk.end().values()) == {HostState.CONFIRMED}


def test_an_abort_ends_it_and_a_new_one_says_what_it_supersedes(desk_of: Any) -> None:
    desk = desk_of(fleet_of(8))
    assert desk.begin(pauses=True) == 6
    assert "as was asked for, after the first wave" in desk.shown.getvalue()
    assert desk.resume(EventKind.ABORTED) == 0
    assert sorted(host.truth for host in desk.world.hosts.values()) == [NEW] * 2 + [OLD] * 6
    with pytest.raises(verb.NothingOpen, match="no rollout of this site is open"):
        desk.resume()
    assert desk.begin(pauses=True) == 6
    assert desk.begin() == 0
    assert "supersedes rollout " in desk.shown.getvalue()


def test_the_rollout_of_another_site_is_not_resumed(desk_of: Any) -> None:
    desk = desk_of(fleet_of(4))
    assert desk.begin(pauses=True) == 6
    desk.lines[0]["hosts"] = ["elsewhere"]
    for kind in (EventKind.RESUMED, EventKind.ABORTED):
        with pytest.raises((DerpfleetError, LedgerUnreadable)):
            desk.resume(kind)


def test_a_site_file_that_has_lost_a_host_says_how_to_go_on(desk_of: Any) -> None:
    desk = desk_of(fleet_of(4))
    assert desk.begin(pauses=True) == 6
    left = {name: host for name, host in desk.site.hosts.items() if name != "h2"}
    desk.site = desk.site.model_copy(update={"hosts": left})
    for kind in (EventKind.RESUMED, EventKind.ABORTED):
        with pytest.raises(NoSuchHost, match="cannot go on here: no host named h2") as refused:
            desk.resume(kind)
        assert refused.value.next.startswith("put it back into the site file")
    desk.hosts = list(left.values())
    assert desk.begin() == 0
    assert "supersedes rollout" in desk.shown.getvalue()


@pytest.mark.parametrize("head", [{"hosts": []}, {"hosts": None}, {"policy": {"waves": []}}, {"since": "x"}])
def test_a_ledger_with_a_broken_head_is_refused(desk_of: Any, head: dict[str, Any]) -> None:
    desk = desk_of(fleet_of(4))
    assert desk.begin(pauses=True) == 6
    with pytest.raises(LedgerUnreadable, match="cannot be read"):
        replayed([desk.lines[0] | head, *desk.lines[1:]])


@pytest.mark.parametrize("canary", [["h1", "h9"], ["h2"]])
def test_a_canary_that_is_no_host_of_the_rollout_is_refused(
    desk_of: Any, monkeypatch: pytest.MonkeyPatch, canary: list[str]
) -> None:
    """Another host would be the first one."""
    desk = desk_of(fleet_of(3))
    monkeypatch.setattr(Fleet, "equipped", lambda fleet, *_, **__: [*fleet.site.hosts.values()][:2])
    with pytest.raises(DerpfleetError) as refused:
        carry_out(desk.fleet(), ["h0", "h1"], options(keys={"canary": canary}))
    assert canary[-1] in str(refused.value)
    assert desk.lines == []


@pytest.mark.parametrize("line", [{}, {"kind": "odd"}, {"kind": "confirmed", "host": "nobody"}, [], None])
def test_a_ledger_that_makes_no_sense_is_refused(desk_of: Any, line: Any) -> None:
    desk = desk_of(fleet_of(4))
    assert desk.begin(pauses=True) == 6
    with pytest.raises(LedgerUnreadable, match="cannot be read"):
        replayed([*desk.lines, line])


def test_its_events_are_as_described(desk_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    desk = desk_of(fleet_of(3), json_lines=True)
    assert desk.begin() == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["event"] for event in events} == {"rollout", "host_state", "wave", "rollout_ended"}
    for event in events:
        assert list(wrong(event, EVENTS[event["event"]])) == []
    assert {event["id"] for event in events if "id" in event} == {desk.lines[0]["rollout"]}
    assert [event["exit"] for event in events[-1:]] == [0]
    waves = [(one["number"], one["state"]) for one in events if one["event"] == "wave"]
    assert waves == [
        (number, state)
        for number in (1, 2)
        for state in ("cutting", "soaking", "registering", "done")
    ]


def test_the_host_of_an_event_is_shown_before_those_that_it_leads_to(
    desk_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the site file h1 would begin to go back before h2 is as before."""
    desk = desk_of(fleet_of(3), json_lines=True)
    desk.world.hosts["h2"].fault = EventKind.UNDONE
    assert desk.begin() == 7
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    states = [(one["host"], one["state"]) for one in events if one["event"] == "host_state"]
    assert states.index(("h2", "undone")) < states.index(("h1", "going back"))


def options(**more: Any) -> RolloutOptions:
    return RolloutOptions(keys=more.pop("keys", {}), head={}, **more)


def test_what_happens_while_the_ledger_is_written_is_one_turn(desk_of: Any) -> None:
    """Two hundred hosts that are prepared at once do not wait for each other's line."""
    desk, turns = desk_of(fleet_of(60)), list[int]()
    slow = desk.note

    def note(*lines: Mapping[str, Any], begins: bool = False) -> None:
        turns.append(sum(line.get("kind") == EventKind.PREPARED for line in lines))
        time.sleep(0.02)
        slow(*lines, begins=begins)

    desk.note = note
    assert desk.begin(RolloutPolicy(waves=("rest",), soak_s=0)) == 0
    assert sum(turns) == 60
    assert sum(map(bool, turns)) < 20


def test_an_option_wins_over_the_site_file() -> None:
    policy = RolloutPolicy(budget=2, soak_s=5)
    found = chosen(policy, {"waves": "1,50%", "budget": "0", "soak_s": "", "canary": []})
    assert (found.waves, found.budget, found.soak_s) == (("1", "50%"), 0, 5)


@pytest.mark.parametrize(
    ("key", "value", "option"),
    [
        ("waves", "1,lots", "--waves"), ("budget", "-1", "--budget"), ("soak_s", "x", "--soak"),
        ("at_once", "0", "--at-once"), ("on_failure", "panic", "--on-failure"), ("soak_s", "1e9", "--soak"),
        ("waves", ",", "--waves"), ("budget", "1.5", "--budget"),
    ],
)  # fmt: skip
def test_an_option_that_does_not_fit_is_named(key: str, value: str, option: str) -> None:
    with pytest.raises(DerpfleetError, match=f"^{option} does not take") as refused:
        chosen(RolloutPolicy(), {key: value})
    assert not re.search("(String|Input|Value) (should|is)", refused.value.why)  # not pydantic's words
    assert refused.value.why


@pytest.mark.parametrize(
    "more", [{"keys": {"budget": "1"}}, {"again": True}, {"dry_run": True}, {"again": True, "abort": True}]
)
def test_one_that_has_begun_takes_no_options(desk_of: Any, more: dict[str, Any]) -> None:
    desk = desk_of(fleet_of(4))
    with pytest.raises(DerpfleetError, match="no meaning for a rollout that has begun"):
        carry_out(desk.fleet(), [], options(resume=True, **more))


def test_one_that_has_begun_goes_on_or_ends(desk_of: Any) -> None:
    desk = desk_of(fleet_of(4))
    assert desk.begin(pauses=True) == 6
    with pytest.raises(DerpfleetError, match="give one of --resume and --abort"):
        carry_out(desk.fleet(), [], options(resume=True, abort=True))
    assert carry_out(desk.fleet(), [], options(abort=True)) == 0


def test_relays_that_somebody_else_runs_are_left_to_them(
    desk_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(fleet_of(3))
    monkeypatch.setattr(Fleet, "equipped", lambda fleet, *_, **__: list(fleet.site.hosts.values()))
    others = {
        name: host.model_copy(update={"managed": name == "h1"}) for name, host in desk.site.hosts.items()
    }
    desk.site = desk.site.model_copy(update={"hosts": others})
    assert carry_out(desk.fleet(), [], options()) == 0
    assert desk.end() == {"h1": HostState.CONFIRMED}
    assert "somebody else runs it: it counts as another relay" in desk.shown.getvalue()
