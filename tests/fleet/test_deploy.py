"""A deploy of several hosts: the failure of one leaves those before it registered."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import roles
from engine import run, session
from engine.facts import Output
from engine.report import Report
from fleet import check, deploy
from fleet.shared import cut_over, host_job, step
from fleet.shared.confirm import Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.verdict import Conclusion
from inventory.docker import Docker
from inventory.model import Host
from probe.proof import Proof
from roles import paths, relay
from tests.control.test_headscale import site_of
from tests.engine.test_answers import Said, event, facts, packed
from tests.fleet.test_events import EVENTS, wrong
from tests.fleet.test_withdraw import proof
from tests.support.facts import DEBIAN_12, EMPTY_FILE

COUNTS = dict.fromkeys(session.STATUSES, 0)


def all_proved(_: Fleet, hosts: Sequence[Host], **__: Any) -> dict[str, Proof]:
    return {one.name: proof(one.name, ok=True) for one in hosts}


class World:
    """Two hosts, of which hk1 was stopped on purpose. `registered`: the hosts that reached the map.

    `note`: the text that hk1 keeps about it; None: it runs.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, note: str | None) -> None:
        self.note, self.registered, self.shown = note, list[str](), io.StringIO()
        self.fleet = Fleet(site_of(), Report(console=Console(file=self.shown, width=400)))
        server = SimpleNamespace(
            unasked=str, register=self.register, check=self.check, not_proved=lambda _: None
        )
        monkeypatch.setattr(Fleet, "runs", folder)
        monkeypatch.setattr(step, "converge", self.converge)
        monkeypatch.setattr(roles, "refusals", lambda *_: [])
        monkeypatch.setattr(roles, "compile_host", lambda *_: [])
        monkeypatch.setattr(host_job, "shipment", lambda *_: None)
        for verb in (deploy, check):
            monkeypatch.setattr(verb, "control_server", lambda _: server)
        monkeypatch.setattr(deploy, "prove_hosts", all_proved)
        monkeypatch.setattr(Confirmation, "look", lambda *_: None)

    def converge(self, login: Any, job: Any, **_: Any) -> Any:
        assert set(relay.ASK_WITHDRAWN.files) <= set(job.ask.files)
        is_there = login.name == "hk1" and self.note is not None
        there = {paths.WITHDRAWN: replace(EMPTY_FILE, content=self.note)} if is_there else {}
        job.plan(SimpleNamespace(facts=replace(DEBIAN_12, files=there)))
        return SimpleNamespace(counts=COUNTS, failures=[], ok=True, facts=DEBIAN_12, is_going_back=False)

    def register(self, proved: Any, *, all_proved: Any) -> None:
        self.registered += [host.name for host in proved]

    def check(self, hosts: Any) -> int:
        self.registered += [host.name for host in hosts]
        return len(hosts)


FORM = event("hello", v=1, z=facts(python="x"))
CONTENT = event("hello", v=1, z=facts(os_version="twelve"))
NO_HISTORY = event("history", z=packed(b'{"generations": [], "unconfirmed": {}}'))


@pytest.mark.parametrize("hello", [FORM, CONTENT], ids=["another form", "no version"])
def test_a_host_that_talks_nonsense_is_its_own_failure(
    hello: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, shown, registered = site_of(), io.StringIO(), []
    image = Docker(image=f"ghcr.io/example/derper@sha256:{'0' * 64}")
    docker = site.hosts["hk1"].model_copy(update={"flavour": "docker", "docker": image})
    fleet = Fleet(site, Report(console=Console(file=shown, width=400)))

    def converge(login: Any, job: Any, **more: Any) -> Any:
        if login.name == "hk1":
            return run.converge(login, job, **more)
        return SimpleNamespace(counts=COUNTS, failures=[], ok=True, facts=DEBIAN_12, is_going_back=False)

    class Server(SimpleNamespace):
        def unasked(self, why: str) -> str:
            return why

        def register(self, proved: Any, *, all_proved: Any) -> None:
            registered.extend(host.name for host in proved)

    monkeypatch.setattr(Fleet, "runs", tmp_path)
    monkeypatch.setattr(step, "converge", converge)
    monkeypatch.setattr(session, "AgentChannel", lambda _: Said(hello, NO_HISTORY))
    monkeypatch.setattr(deploy, "control_server", lambda _: Server())
    monkeypatch.setattr(deploy, "prove_hosts", all_proved)
    assert deploy.deploy(fleet, [site.hosts["sg1"], docker]) == 1
    assert registered == ["sg1"]
    assert "hk1" in shown.getvalue()
    assert "Traceback" not in shown.getvalue()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("note", "back"),
    [("withdrawn", "invoke deploy --host hk1"), ("drained", "invoke drain --host hk1 --back")],
)
def test_a_relay_that_was_stopped_on_purpose_comes_back_only_when_it_is_asked_for(
    note: str, back: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch, note=note)
    hosts = list(world.fleet.site.hosts.values())
    assert deploy.deploy(world.fleet, hosts, include_withdrawn=named) == 0
    assert world.registered == (["hk1", "sg1"] if named else ["sg1"])
    words = f"hk1        skipped      {note}, so it is left alone; {back} brings it back"
    assert (words in world.shown.getvalue()) is not named
    assert (f"its relay is {note}; a deploy brings it back" in world.shown.getvalue()) is named
    assert "FAILED" not in world.shown.getvalue()


@pytest.mark.parametrize(("named", "changes"), [(False, 1), (True, 2)])
def test_a_check_of_all_leaves_a_withdrawn_relay_out(
    named: bool, changes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch, note="")
    hosts = list(world.fleet.site.hosts.values())
    assert check.check(world.fleet, hosts, include_withdrawn=named) == 10
    assert len(world.registered) == changes


@pytest.mark.parametrize("registers", [True, False])
def test_the_exit_code_of_a_host_is_above_that_of_the_map(
    registers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proved hosts are registered all the same."""
    world = World(tmp_path, monkeypatch, note=None)
    codes, tried = [0, 8], list[str]()

    def register(_: Fleet, __: Any, proofs: Any) -> bool:
        tried.extend(proofs)
        return registers

    monkeypatch.setattr(deploy, "_converge", lambda *_: codes.pop(0))
    monkeypatch.setattr(deploy, "register", register)
    assert deploy.deploy(world.fleet, list(world.fleet.site.hosts.values())) == 8
    assert tried == ["hk1"]


BEFORE = "derp_clients_local 3\nprocess_start_unix_time 1000.5\n"


def outcome_of(host: Host, before: str, changed: list[str], after: str | None = None) -> run.Outcome:
    said = {"clients_before": before} | ({} if after is None else {"clients_after": after})
    commands = {name: Output(status=0, stdout=text, stderr="") for name, text in said.items()}
    facts = replace(DEBIAN_12, commands=commands)
    return run.Outcome(host.name, "apply", COUNTS, facts, Path("/dev/null"), changed=changed)


def test_clients_are_asked_for_again_only_where_a_restart_cut_some(tmp_path: Path) -> None:
    """A no-op deploy and a first deploy have no turn more."""
    fleet = Fleet(site_of(), Report(console=Console(file=io.StringIO())))
    host = fleet.site.hosts["hk1"]
    job = host_job.host_job(fleet, host, run.Verb.DEPLOY, ["role:relay"])
    assert "clients_before" in job.ask.commands
    whole = host_job.host_job(fleet, host, run.Verb.DEPLOY, ())
    assert "clients_before" not in host_job.host_job(fleet, host, run.Verb.CHECK, ()).ask.commands
    restarted = [relay.chosen_runner(host).RUNNING]
    for one in (job, whole):
        assert one.afterwards(outcome_of(host, BEFORE, restarted)) == run.NOTHING  # the judge asks
    assert cut_over.ask_after(host, outcome_of(host, BEFORE, [])) == run.NOTHING
    assert cut_over.ask_after(host, outcome_of(host, "", restarted)) == run.NOTHING
    asked = cut_over.ask_after(host, outcome_of(host, BEFORE, restarted)).commands["clients_after"]
    assert asked[4:6] == ("3", "12")
    assert asked[6:] == job.ask.commands["clients_before"]


@pytest.mark.parametrize("after", [None, "3 1000.5 1001.00\n", "2 2000.0 2001.50\n"])
def test_a_deploy_says_how_many_clients_were_cut(
    after: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for report in (Report(), Report(json_lines=True)):
        fleet = Fleet(site_of(), report)
        host = fleet.site.hosts["hk1"]
        facts = outcome_of(host, BEFORE, [], after).facts
        cut_over.show(fleet, host, cut_over.counted_in(facts, facts))
    said = capsys.readouterr().out
    words = "3 clients cut, 2 of them back within 1.5 s of the relay's start"
    assert (words in said) is (after == "2 2000.0 2001.50\n")
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    found = [{"event": "clients", "host": "hk1", "cut": 3, "back": 2, "seconds": 1.5, "way_back": False}]
    assert lines == (found if words in said else [])
    assert [list(wrong(line, EVENTS["clients"])) for line in lines] == [[] for _ in lines]


@pytest.mark.parametrize(
    ("verdict", "proved", "words"),
    [
        (Conclusion.STILL_BROKEN, False, "It was broken before, and nothing more is broken: it is kept."),
        (Conclusion.FAILED, True, "It has no earlier confirmed state to go back to."),
        (Conclusion.PROVED, True, ""),
    ],
)
def test_only_a_proved_host_without_an_objection_is_registered(
    verdict: Conclusion, proved: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch, note=None)

    def run_confirmed(_: Fleet, host: Host, job: Any, judge: Confirmation) -> run.Outcome:
        judge.verdict, judge.proof, judge.why = verdict, proof(host.name, ok=proved), "packets, as before"
        return outcome_of(host, "", [])

    monkeypatch.setattr(deploy, "run_confirmed", run_confirmed)
    code = deploy.deploy(world.fleet, [world.fleet.site.hosts["hk1"]])
    is_fine = verdict is Conclusion.PROVED
    assert (code, world.registered) == ((0, ["hk1"]) if is_fine else (1, []))
    assert ("NOT proved" in world.shown.getvalue()) is not is_fine
    assert words in world.shown.getvalue()
