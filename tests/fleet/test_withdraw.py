"""Take a relay out of service, whatever the state of the relays. No node is left without one."""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from control.headscale import server
from control.headscale.facts import HeadscaleRefused
from engine.facts import Facts, Output
from engine.login import Unreachable
from engine.report import Report
from engine.resource import File
from engine.run import Failure, Job, ResourceFailed
from fleet import withdraw
from fleet.shared import out_of_service, pins, prove, step
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.out_of_service import NoOtherRelay, StillAtHome
from inventory.model import Site
from probe.proof import LADDER, Proof, Rung
from tests.control.test_headscale import facts as seen
from tests.control.test_headscale import site_of

MAP = """\
regions:
  900:
    regionid: 900
    regioncode: hk
    regionname: Hong Kong
    nodes: [{name: 900a, regionid: 900, hostname: hk1.example.org}]
  901:
    regionid: 901
    regioncode: sg
    regionname: Singapore
    nodes: [{name: 901a, regionid: 901, hostname: sg1.example.org}]
"""
ONLY_SG = MAP[: MAP.index("  900:")] + MAP[MAP.index("  901:") :]


def proof(name: str, *, ok: bool) -> Proof:
    rungs = tuple(Rung(rung, "ok" if ok else "failed") for rung in LADDER)
    return Proof(target=name, address=name, rungs=rungs, ms=1.0, at="2026-01-01T00:00:00Z")


@dataclass
class World:
    """Stand-ins for the hosts. `done`: the actions, in order.

    `homes`: headscale's answers, one for each question about the nodes at home.
    """

    fleet: Fleet
    shown: io.StringIO
    map: str = MAP
    shows_map: bool = True
    homes: list[list[str] | type[BaseException] | None] = field(default_factory=lambda: [[]])
    proved: set[str] = field(default_factory=lambda: {"sg1"})
    out_of_reach: bool = False
    answers: bool = False
    failure: Failure | None = None
    clients: int = 7
    notes: list[bytes] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    climbed: list[str] = field(default_factory=list)
    slept: float = 0

    def facts(self) -> Facts:
        return seen(map=self.map)

    def converge(self, login: Any, job: Job, **_: Any) -> Any:
        if login.name == "headscale":
            session = SimpleNamespace(facts=self.facts(), ask=lambda _: self.facts())
            resources = list(job.plan(session))
            text = next(
                resource.content.decode()
                for resource in resources
                if resource.id == "file:/etc/headscale/derp.yaml"
            )
            self.done.append("map" if text != self.map else "map as it is")
            self.map = text
        elif self.out_of_reach:
            raise Unreachable("cannot connect", host=login.name, why="no route to host")
        else:
            there: Any = SimpleNamespace(facts=self.answers_to(job))
            self.notes += [one.content for one in job.plan(there) if isinstance(one, File)]
            self.done.append(f"stop {login.name}")
        failures = [self.failure] if self.failure and login.name != "headscale" else []
        counts = {"ok": 1, "changed": 0, "failed": len(failures), "skipped": 0}
        return SimpleNamespace(counts=counts, failures=failures, facts=self.answers_to(job), changed=[])

    def answers_to(self, job: Job) -> Facts:
        page = Output(status=0, stdout=f"derp_clients_local {self.clients}\n", stderr="")
        return replace(self.facts(), commands=dict.fromkeys(job.ask.commands, page))

    def at_home(self, *_: Any) -> list[str] | None:
        said = self.homes.pop(0) if len(self.homes) > 1 else self.homes[0]
        if isinstance(said, type):
            raise said
        return said

    def withdraw(self, name: str = "hk1") -> int:
        return withdraw.withdraw(self.fleet, self.fleet.site.hosts[name])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(site_of(), tmp_path, monkeypatch)


def make_world(site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    shown = io.StringIO()
    fleet = Fleet(site, Report(console=Console(file=shown, width=400)))
    world = World(fleet, shown)

    class Session(SimpleNamespace):
        def ask(self, _: Any) -> Facts:
            page = {"served": Output(status=0, stdout="{}", stderr="")} if world.shows_map else {}
            return replace(self.facts, commands={**self.facts.commands, **page})

    def sleep(seconds: float) -> None:
        world.slept += seconds

    def prove_hosts(fleet: Fleet, hosts: Any, **__: Any) -> dict[str, Proof]:
        world.climbed += [host.name for host in hosts]
        found = {host.name: proof(host.name, ok=host.name in world.proved) for host in hosts}
        for name, one in found.items():
            prove.keep(fleet, name, one)
        return found

    monkeypatch.setattr(Fleet, "runs", folder)
    monkeypatch.setattr(step, "converge", world.converge)
    monkeypatch.setattr(pins, "known", lambda *_: {})
    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: nullcontext(Session(facts=world.facts())))
    monkeypatch.setattr(server, "nodes_at_home", world.at_home)
    monkeypatch.setattr(prove, "prove_hosts", prove_hosts)
    monkeypatch.setattr(out_of_service, "targets", lambda *_: [])
    monkeypatch.setattr(out_of_service, "prove", lambda _: [proof("hk1", ok=world.answers)])
    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: world.slept)
    monkeypatch.setattr(out_of_service, "time", clock)
    return world


def test_the_relay_stops_nodes_move_and_then_its_region_goes(world: World) -> None:
    world.homes = [["laptop", "phone"], ["phone"], []]
    assert world.withdraw() == 0
    assert world.done == ["stop hk1", "map"]
    assert "900" not in world.map
    assert "sg1.example.org" in world.map
    assert world.slept == 2
    words = "hk1        ok           withdrawn; invoke deploy --host hk1 brings it back"
    assert words in world.shown.getvalue()
    assert "hk1        ok           stopped; 7 clients were connected" in world.shown.getvalue()
    words = "2 nodes had it for a home; every node that is online has another one  2.0 s"
    assert words in world.shown.getvalue()
    assert world.notes == [b"withdrawn\n"]


def test_a_region_that_may_not_leave_the_map_stops_no_relay(world: World) -> None:
    """A node of somebody else would be lost with it."""
    world.map = MAP.replace("hk1.example.org}", "hk1.example.org}, {name: x, regionid: 900, hostname: x.y}")
    with pytest.raises(HeadscaleRefused, match="headscale's map was not changed") as error:
        world.withdraw()
    assert "has nodes of others, too: x at x.y" in error.value.why
    assert world.done == []


def test_a_kept_proof_is_forgotten(world: World) -> None:
    kept = world.fleet.runs / "hk1" / "proof.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    assert world.withdraw() == 0
    assert not kept.exists()


def test_withdrawn_twice_changes_nothing_and_needs_no_other_relay(world: World) -> None:
    world.map, world.proved = ONLY_SG, set()
    assert world.withdraw() == 0
    assert world.done == ["stop hk1", "map as it is"]
    assert world.slept == 0


@pytest.mark.parametrize(
    ("map_text", "proved"), [(MAP, set()), (ONLY_SG.replace("901", "900").replace("sg", "hk"), {"sg1"})]
)
def test_the_only_relay_that_nodes_have_stays(world: World, map_text: str, proved: set[str]) -> None:
    world.map, world.proved = map_text, proved
    with pytest.raises(NoOtherRelay, match="nothing was changed: it is the only relay") as error:
        world.withdraw()
    assert error.value.why == "no other relay of this site is proved and in the map"
    assert (world.done, world.map) == ([], map_text)


def test_others_are_proved_once_in_a_run(world: World) -> None:
    """A rollout would prove all of them for each host."""
    for _ in range(3):
        world.map = MAP
        assert world.withdraw() == 0
    assert world.climbed == ["sg1"]


def test_a_relay_that_this_run_withdrew_counts_no_more(world: World) -> None:
    world.proved = {"hk1", "sg1"}
    assert world.withdraw("hk1") == 0
    world.map, world.proved = MAP, {"sg1"}
    with pytest.raises(NoOtherRelay):
        world.withdraw("sg1")
    assert world.climbed == ["sg1", "hk1"]


def test_a_relay_that_was_not_proved_is_proved_again(world: World) -> None:
    world.proved = set()
    with pytest.raises(NoOtherRelay):
        world.withdraw()
    world.proved = {"sg1"}
    assert world.withdraw() == 0


def test_the_files_of_a_headscale_that_does_not_show_its_map_are_believed(world: World) -> None:
    world.shows_map = False
    assert world.withdraw() == 0
    assert world.done == ["stop hk1", "map"]


def test_nodes_that_do_not_move_keep_the_region(world: World) -> None:
    world.homes = [["phone"]]
    with pytest.raises(StillAtHome, match="phone did not find another home within 90 s") as error:
        world.withdraw()
    assert world.done == ["stop hk1"]
    assert error.value.why == "the relay is stopped, its region is still in the map"
    assert "invoke withdraw --host hk1" in error.value.next
    assert "invoke deploy --host hk1" in error.value.next


def test_a_missing_answer_does_not_mean_that_no_node_is_at_home(world: World) -> None:
    world.homes = [["phone"], None, None, []]
    assert world.withdraw() == 0
    assert world.slept == 3
    world.map, world.homes, world.done = MAP, [["phone"], None], []
    with pytest.raises(StillAtHome):
        world.withdraw()
    assert world.done == ["stop hk1"]


def test_where_headscale_reports_no_homes_nodes_are_given_time(world: World) -> None:
    world.homes = [None]
    assert world.withdraw() == 0
    assert world.slept == out_of_service.SETTLING_S


def test_a_host_that_is_gone_counts_as_stopped(world: World) -> None:
    world.out_of_reach = True
    assert world.withdraw() == 0
    assert world.done == ["map"]
    assert "nothing of its relay answers" in world.shown.getvalue()


def test_a_host_that_cannot_be_reached_and_still_relays_is_not_withdrawn(world: World) -> None:
    world.out_of_reach = world.answers = True
    with pytest.raises(Unreachable) as error:
        world.withdraw()
    assert world.done == []
    assert error.value.why.startswith("no route to host\nIts relay still answers")


def test_a_relay_that_does_not_stop_keeps_its_region(world: World) -> None:
    world.failure = Failure("service:derpfleet-relay.service", "did not stop", "a job is running", "relay")
    with pytest.raises(ResourceFailed, match="did not stop") as error:
        world.withdraw()
    assert error.value.where == "roles/relay/ -> service:derpfleet-relay.service"
    assert world.map == MAP


def test_ctrl_c_while_nodes_move_says_how_to_finish(world: World) -> None:
    world.homes = [["phone"], KeyboardInterrupt]
    with pytest.raises(Interrupted) as error:
        world.withdraw()
    assert error.value.exit_code == 130
    assert error.value.why == "the relay is stopped, its region is still in the map"
    assert "invoke deploy --host hk1" in error.value.next
    assert world.done == ["stop hk1"]


def test_without_headscale_a_person_reads_which_region_to_take_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(site_of().model_copy(update={"headscale": None}), tmp_path, monkeypatch)
    assert world.withdraw() == 0
    assert world.done == ["stop hk1"]
    assert world.slept == out_of_service.SETTLING_S
    assert "Take region 900 (hk) out of the map of your control server now." in world.shown.getvalue()


def test_the_only_host_may_go_if_nodes_have_tailscales_own_relays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = site_of()
    world = make_world(
        site.model_copy(update={"headscale": None, "hosts": {"hk1": site.hosts["hk1"]}}),
        tmp_path,
        monkeypatch,
    )
    assert world.withdraw() == 0
    assert world.done == ["stop hk1"]


def test_the_only_host_of_a_site_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = site_of()
    only_ours = site.derpmap.model_copy(update={"omit_default_regions": True})
    alone = site.model_copy(
        update={"headscale": None, "hosts": {"hk1": site.hosts["hk1"]}, "derpmap": only_ours}
    )
    world = make_world(alone, tmp_path, monkeypatch)
    with pytest.raises(NoOtherRelay) as error:
        world.withdraw()
    assert error.value.why == "the site has no other host"
    assert world.done == []
