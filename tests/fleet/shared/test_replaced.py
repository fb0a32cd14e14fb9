"""The release that a plan replaces: whose it was, and how many clients its program has."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.facts import Ask, Facts, Listener, Output
from engine.generations import Outline, Stored
from engine.report import Report
from engine.run import Job, Verb
from fleet.shared import confirm, cut_over, evidence, out_of_service
from fleet.shared.confirm import Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.seen import settings
from fleet.shared.verdict import Conclusion, Evidence
from inventory.docker import Docker
from probe.cutover import CutOver
from roles import relay
from roles.relay import OutOfService
from tests.fleet.generations import HOST, Armed, generation, known, outcome
from tests.fleet.test_events import EVENTS, wrong
from tests.fleet.test_prover import IMAGE
from tests.fleet.test_withdraw import proof
from tests.support.facts import DEBIAN_12

DEPLOY = Job(verb=Verb.DEPLOY, plan=lambda _: (), about=lambda _: {})
DERPER = HOST.model_copy(update={"flavour": "docker", "docker": Docker(image=IMAGE)})
RELAY = Listener(
    proto="tcp", address="127.0.0.1", port=3340, pid=7, program="python3", unit="derpfleet-relay.service"
)


class Session(Armed):
    """Stands in for a session of ann@desk. `asked`: the commands that the host was asked."""

    def __init__(self, who: str, *, page: str = "", listening: tuple[Listener, ...] = (RELAY,)) -> None:
        super().__init__(3)
        self.who, self.asked = who, list[Ask]()
        said = {"clients_before": Output(status=0, stdout=page, stderr="")}
        self.facts = replace(DEBIAN_12, commands=said, listening=listening)
        self.newest = Outline(generation=3, contents=frozenset())

    def ask(self, ask: Ask) -> Facts:
        self.asked.append(ask)
        return self.facts


@pytest.fixture(autouse=True)
def proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: Evidence())
    monkeypatch.setattr(confirm, "prove_quietly", lambda *_, **__: proof("hk1", ok=True))
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=True)})


@pytest.mark.parametrize(
    ("who", "release", "is_said"),
    [
        ("bob@desk", "relay new", True),
        ("ann@desk", "relay new", False),
        ("bob@desk", "relay b", False),  # the same release with other settings
        ("bob@desk", "", False),  # a part of a plan
    ],
)
def test_a_release_of_another_operator_is_named(
    fleet: Fleet, shown: io.StringIO, who: str, release: str, is_said: bool
) -> None:
    session: Any = Session(who, page="derp_clients_local 1")
    judge = Confirmation(fleet, HOST, None)
    judge.look(DEPLOY, [], session)
    judge(outcome(about={"release": release}), session)
    assert ("replaces     relay b of ann@desk, since 1970-01-01 00:00" in shown.getvalue()) is is_said
    assert session.words[-1] == "keep"


def test_it_is_an_event_of_json_as_well(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.report = Report(json_lines=True)
    session: Any = Session("bob@desk", page="derp_clients_local 1")
    judge = Confirmation(fleet, HOST, None)
    judge.look(DEPLOY, [], session)
    judge(outcome(about={"release": "relay new"}), session)
    [said] = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "replaces" in line]
    assert list(wrong(said, EVENTS["replaces"])) == []
    assert said == {
        "event": "replaces", "host": "hk1", "release": "relay b", "who": "ann@desk", "since": 0.0,
    }  # fmt: skip


def test_the_host_is_not_asked_again_whose_release_it_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO
) -> None:
    session: Any = Session("bob@desk", page="derp_clients_local 1")
    session.came_along, session.history = session.history(), None
    judge = Confirmation(fleet, HOST, None)
    judge.look(DEPLOY, [], session)
    judge(outcome(about={"release": "relay new"}), session)
    assert "replaces     relay b of ann@desk" in shown.getvalue()


def test_a_way_back_has_said_it_already(fleet: Fleet, shown: io.StringIO) -> None:
    session: Any = Session("bob@desk", page="derp_clients_local 1")
    judge = Confirmation(fleet, HOST, None)
    judge.look(Job(verb=Verb.ROLLBACK, plan=lambda _: ()), Stored(1, "a", {}), session)
    judge(outcome(about={"release": "relay a"}), session)
    assert "replaces" not in shown.getvalue()


@pytest.mark.parametrize(
    ("page", "listening", "is_asked"),
    [("", (RELAY,), True), ("derp_clients_local 1", (RELAY,), False), ("", (), False)],
)
def test_the_page_of_another_program_is_asked_for_its_clients(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, page: str, listening: tuple[Listener, ...], is_asked: bool
) -> None:
    """The page of the new program does not answer before the switch."""
    session: Any = Session("ann@desk", page=page, listening=listening)
    monkeypatch.setattr(session, "history", lambda: known(generation(3, "b", about={"seen": settings(HOST)})))
    Confirmation(fleet, DERPER, None).look(DEPLOY, [], session)
    assert session.asked == ([cut_over.ask_before(HOST)] if is_asked else [])
    assert cut_over.ask_before(HOST) != cut_over.ask_before(DERPER)


@pytest.mark.parametrize("state", OutOfService)
def test_a_relay_that_is_stopped_for_a_change_is_asked_for_its_clients_where_it_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, state: OutOfService
) -> None:
    """As a mover of a rollout, and after an edit of the site file."""
    session: Any = Session("ann@desk")
    session.came_along = known(generation(3, "b", about={"seen": settings(HOST)}))

    def step(_: Fleet, __: object, job: Job, **___: object) -> Any:
        assert {*relay.ASK_PORTS.commands} <= {*job.ask.commands}
        job.plan(session)
        [page] = session.asked[-1].commands
        said = {page: Output(status=0, stdout="derp_clients_local 4", stderr="")}
        return SimpleNamespace(facts=replace(session.facts, commands=said))

    monkeypatch.setattr(Fleet, "login", lambda *_: None)
    monkeypatch.setattr(out_of_service, "step", step)
    assert out_of_service.stop(fleet, DERPER, Verb.DRAIN, state) == 4
    assert session.asked == [cut_over.ask_before(HOST)]


@pytest.mark.parametrize(("https", "is_said"), [(8443, True), (443, False)])
def test_a_relay_that_moves_with_its_clients_is_taken_back_and_the_drain_is_named(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, https: int, is_said: bool
) -> None:
    """They can find its new place only in the map, which has it after the proof."""
    away = Evidence(clients=CutOver(cut=7, back=0, seconds=None))
    monkeypatch.setattr(evidence, "hear", lambda *_, **__: away)
    there = HOST.model_copy(update={"ports": HOST.ports.model_copy(update={"https": https})})
    session: Any = Session("ann@desk")
    judge = Confirmation(fleet, there, None)
    judge(outcome(), session)
    assert (session.words[-1], judge.verdict) == ("back", Conclusion.FAILED)
    assert judge.why.startswith("the clients did not come back: 7 clients cut")
    assert ("before it moves, run: invoke drain --host hk1" in judge.why) is is_said


@pytest.mark.parametrize(
    ("page", "listening", "changed", "is_said"),
    [
        ("", (RELAY,), ["service:derpfleet-relay.service"], True),
        ("derp_clients_local 0", (RELAY,), ["service:derpfleet-relay.service"], False),
        ("", (), ["service:derpfleet-relay.service"], False),  # it did not run
        ("", (RELAY,), ["service:nginx.service"], False),  # it was not restarted
    ],
)
def test_a_cut_over_without_a_figure_from_before_says_so(
    fleet: Fleet, shown: io.StringIO, page: str, listening: tuple[Listener, ...],
    changed: list[str], is_said: bool,
) -> None:  # fmt: skip
    session: Any = Session("ann@desk", page=page, listening=listening)
    went = outcome(changed=changed)
    went.facts = session.facts
    Confirmation(fleet, HOST, None)(went, session)
    assert ("the former relay's metrics did not answer" in shown.getvalue()) is is_said


def test_without_a_generation_nothing_is_known_of_another_program(fleet: Fleet) -> None:
    session: Any = Session("ann@desk")
    session.newest = Outline(generation=0, contents=frozenset())
    Confirmation(fleet, DERPER, None).look(DEPLOY, [], session)
    assert session.asked == []
