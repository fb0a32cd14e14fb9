"""Take a relay out of service for work on its host, and bring it back. It is proved or stopped."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from control.tailscale.api import PolicyRefused
from engine.facts import Facts
from engine.generations import Generation, History, Stored, UnconfirmedChanges
from engine.report import Report
from engine.run import Job, Outcome, Verb
from fleet import drain
from fleet.drain import NotDrained
from fleet.shared import confirm, evidence, pins
from fleet.shared.confirm import Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.host_status import HostStatus
from fleet.shared.out_of_service import NoOtherRelay, NotInMap, StillAtHome
from fleet.shared.seen import SiteDiffers, settings
from fleet.shared.verdict import Evidence
from inventory.model import Host
from roles import paths
from roles.relay import OutOfService
from roles.relay.runners import supervisord
from tests.control.tailscale import policies
from tests.control.test_headscale import site_of
from tests.fleet.generations import Armed, known
from tests.fleet.test_events import EVENTS, wrong
from tests.fleet.test_withdraw import MAP, ONLY_SG, World, make_world, proof
from tests.support.facts import DEBIAN_12, EMPTY_FILE
from tests.support.tailscale_api import TAILNET, WRITES, tailnet


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(site_of(), tmp_path, monkeypatch)


def drained(world: World) -> int:
    return drain.drain(world.fleet, world.fleet.site.hosts["hk1"])


def test_the_relay_stops_nodes_move_and_its_region_stays(world: World) -> None:
    world.homes = [["laptop", "phone"], ["phone"], []]
    assert drained(world) == 0
    assert (world.done, world.map, world.climbed) == (["stop hk1"], MAP, ["sg1"])
    assert (world.notes, world.slept) == ([b"drained\n"], 2)
    assert "its region stays in the map; invoke drain --host hk1 --back brings it back" in (
        world.shown.getvalue()
    )


def test_the_figures_are_in_the_json_as_well(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fleet.report = Report(json_lines=True)
    world.homes = [["laptop", "phone"], []]
    assert drained(world) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [said] = [line for line in lines if line["event"] == "drained"]
    assert said == {"event": "drained", "host": "hk1", "clients": 7, "homes": 2, "seconds": 1}
    assert list(wrong(said, EVENTS["drained"])) == []


def test_the_only_relay_that_nodes_have_is_not_drained(world: World) -> None:
    world.proved = set()
    with pytest.raises(NoOtherRelay) as error:
        drained(world)
    assert error.value.next == "deploy another host first, then drain this one"
    assert world.done == []


def test_a_policy_that_may_not_lose_a_region_lets_its_relay_be_drained_and_not_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OmitDefaultRegions needs two regions, and a drain takes none away."""
    both = [policies.of_host(policies.site(), name) for name in ("hk1", "sg1")]
    text = policies.policy_with(*both, omit=True)
    with tailnet(tmp_path, text) as net:
        monkeypatch.setenv("TS_KEY", WRITES)
        monkeypatch.setenv("SSL_CERT_FILE", str(net.ca))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        world = make_world(policies.site(api=net.url, tailnet=TAILNET), tmp_path, monkeypatch)
        with pytest.raises(PolicyRefused, match="was not changed") as error:
            world.withdraw()
        assert "with only region 901" in error.value.why and world.done == []
        assert drained(world) == 0
        assert (world.done, net.text, net.writes) == (["stop hk1"], text, 0)


def test_a_relay_that_is_in_no_map_has_nothing_to_keep_there(world: World) -> None:
    world.map = ONLY_SG
    with pytest.raises(NotInMap, match="nothing was changed: it has no region in the map"):
        drained(world)
    assert world.done == []


def test_nodes_that_do_not_move_are_named_with_both_ways_on(world: World) -> None:
    world.homes = [["phone"]]
    with pytest.raises(StillAtHome, match="phone did not find another home") as error:
        drained(world)
    assert "invoke drain --host hk1, which goes on from there" in error.value.next
    assert error.value.next.endswith("bring the relay back: invoke drain --host hk1 --back")


HK1 = site_of().hosts["hk1"]
NEWEST = Generation(number=4, plan="sha256:x", about={"seen": settings(HK1), "release": "relay x"})
DAMAGED = Generation(number=4, trouble="damaged")


def noted(text: str) -> Facts:
    return replace(DEBIAN_12, files={paths.WITHDRAWN: replace(EMPTY_FILE, content=text)})


def brought(fleet: Fleet, host: Host, facts: Facts, history: History, *, force: bool = False) -> Stored:
    """Return what `--back` brings back on a host with these facts and generations."""
    job = drain._job(fleet, Confirmation(fleet, host, None, leaves=True), force)
    assert job.verb is Verb.DRAIN
    assert job.afterwards(Outcome("hk1", "apply", {}, facts, Path("/dev/null"))) == pins.ask(host)
    session: Any = SimpleNamespace(facts=facts, history=lambda: history)
    stored = job.plan(session)
    assert isinstance(stored, Stored)
    return stored


def test_a_drained_relay_comes_back_as_it_was_confirmed_last(world: World) -> None:
    """Also after a deploy that nobody confirmed: the region stayed in the map for that one."""
    left = UnconfirmedChanges(plan="sha256:y", who="bob@desk", verb="deploy", since=1.0)
    for history in (known(NEWEST), known(NEWEST, left=left)):
        stored = brought(world.fleet, HK1, noted("drained\n"), history)
        assert (stored.number, stored.plan, stored.force) == (4, "sha256:x", False)
        assert {*supervisord.KNOWN_BY} <= {*stored.removed}  # by the drain, not by hand


def test_files_that_were_edited_meanwhile_are_overwritten_only_by_force(world: World) -> None:
    assert brought(world.fleet, HK1, noted("drained\n"), known(NEWEST), force=True).force


@pytest.mark.parametrize(
    ("facts", "history", "what", "why"),
    [
        (DEBIAN_12, known(NEWEST), "it is not drained",
         "no drain has stopped its relay; in force now: generation 4 ("),
        (noted(""), known(NEWEST), "it is not drained", "it is withdrawn; in force now: generation 4 ("),
        (noted("drained"), known(), "no state to go back to", "it has no generation"),
        (noted("drained"), known(DAMAGED), "no state to go back to", "damaged; in force now: generation 4"),
    ],
)  # fmt: skip
def test_what_cannot_come_back_by_itself_is_a_deploys_work(
    world: World, facts: Facts, history: History, what: str, why: str
) -> None:
    with pytest.raises(NotDrained, match=what) as error:
        brought(world.fleet, HK1, facts, history)
    assert error.value.why.startswith(why)
    assert error.value.next == "invoke deploy --host hk1 brings it back as the site file has it"


def test_a_host_that_moved_meanwhile_is_deployed(world: World) -> None:
    moved = HK1.model_copy(update={"ports": HK1.ports.model_copy(update={"https": 8443})})
    with pytest.raises(SiteDiffers) as error:
        brought(world.fleet, moved, noted("drained"), known(NEWEST))
    assert "hosts.hk1.ports.https was 443, and is 8443" in error.value.why
    assert error.value.next.startswith("invoke deploy --host hk1")


Back = tuple[int, str, list[str], list[OutOfService]]


@pytest.fixture
def back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Back]:
    """Bring hk1 back. Returns the exit code, the text, the words to the agent, and the stops."""

    def run(*, proved: bool, ok: bool = True, other: str = "") -> Back:
        shown, stops = io.StringIO(), list[OutOfService]()
        fleet = Fleet(site_of(), Report(console=Console(file=shown, width=400)))
        armed = Armed(4)

        def run_confirmed(_: Fleet, __: Host, ___: Job, judge: Confirmation) -> Outcome:
            outcome = Outcome("hk1", "apply", {}, DEBIAN_12, tmp_path / "log", stopped="" if ok else "a")
            judge(outcome, armed)  # type: ignore[arg-type]  # as much of a session as it uses
            return outcome

        monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence(other_release=other))
        monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=proved)})
        monkeypatch.setattr(drain, "run_confirmed", run_confirmed)
        monkeypatch.setattr(drain, "read_status", lambda *_: HostStatus(clients=2))
        monkeypatch.setattr(drain, "stop", lambda *words: stops.append(words[-1]))
        code = drain.bring_back(fleet, HK1)
        return code, shown.getvalue(), armed.words, stops

    return run


def test_a_relay_is_back_when_it_is_proved(back: Callable[..., Any]) -> None:
    code, text, words, stops = back(proved=True)
    assert (code, words[-1], stops) == (0, "keep", [])
    assert "back in service" in text and "(2 clients by now)" in text


@pytest.mark.parametrize(
    ("proved", "ok", "other"), [(False, True, ""), (True, False, ""), (True, True, "another release")]
)
def test_a_relay_that_is_not_proved_is_stopped_again(
    back: Callable[..., Any], proved: bool, ok: bool, other: str
) -> None:
    code, text, words, stops = back(proved=proved, ok=ok, other=other)
    assert (code, words[-1], stops) == (1, "leave", [OutOfService.DRAINED])
    assert "back in service" not in text
    assert "hk1 is NOT proved, so it was stopped again" in text
