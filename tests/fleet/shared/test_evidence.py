"""The words of a host about its armed plan: the release that answers, and its clients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.facts import Ask, Facts, Output
from engine.run import Outcome
from fleet.shared.evidence import hear, is_all_said
from fleet.shared.verdict import Evidence, objection
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.cutover import Admissions, CutOver
from tests.roles.cases import load
from tests.support.facts import DEBIAN_12

HOST, _, _ = load("bare")
RUNNING = "service:derpfleet-relay.service"
BEFORE = 'derp_clients_local 10\nprocess_start_unix_time 1000\nrelay_admissions{reason="open"} 50\n'
NEW = 'relay_release{id="bb"} 1\nrelay_admissions{reason="open"} 18\n'
REFUSING = NEW + 'relay_admissions{reason="verify_url_timeout"} 9\n'


def said(**words: str) -> dict[str, Output]:
    return {name: Output(status=0, stdout=text, stderr="") for name, text in words.items()}


class Armed:
    """Stands in for the session of an armed plan, whose host gives these samples in turn."""

    def __init__(self, *samples: str, page: str = NEW) -> None:
        self.samples, self.page, self.words = list(samples), page, list[str]()
        self.is_stopping = False

    def hold(self) -> None:
        self.words.append("hold")

    def ask(self, ask: Ask) -> Facts:
        self.words.append("ask")
        watched = "clients_after" in ask.commands
        more = said(clients_after=self.samples.pop(0)) if watched else {}
        return replace(DEBIAN_12, commands=said(metrics=self.page) | more)


def outcome(before: str, *changed: str, release: str = "bb") -> Outcome:
    facts = replace(DEBIAN_12, commands=said(clients_before=before))
    about = {"release": f"relay {release}"}
    return Outcome("hk1", "apply", {}, facts, Path("log"), changed=list(changed), about=about)


def heard(armed: Any, found: Outcome, host: Host = HOST) -> Evidence:
    return hear(host, found, armed, strangers=1)


def test_all_is_asked_in_one_turn() -> None:
    armed = Armed("10 2000 2002.00\n")
    found = heard(armed, outcome(BEFORE, RUNNING))
    assert found.clients == CutOver(cut=10, back=10, seconds=2.0)
    assert (found.before, found.since) == (Admissions(50, 0), Admissions(18, 0))
    assert armed.words == ["hold", "ask"]
    assert objection(found) == ""


def test_late_clients_are_waited_for_and_their_time_is_that_of_the_first_sample() -> None:
    armed = Armed("8 2000 2003.00\n", "8 2000 2013.00\n9 2000 2014.00\n")
    found = heard(armed, outcome(BEFORE, RUNNING))
    assert found.clients == CutOver(cut=10, back=9, seconds=14.0)
    assert armed.words == ["hold", "ask"] * 2
    away = Armed("8 2000 2003.00\n", "", "7 2000 2030.00\n")
    found = heard(away, outcome(BEFORE, RUNNING))
    assert found.clients == CutOver(cut=10, back=8, seconds=3.0)
    assert away.words == ["hold", "ask"] * 3
    assert objection(found).startswith("the clients did not come back: 10 clients cut, 8 of them back")


@pytest.mark.parametrize("found", [outcome(BEFORE), outcome("", RUNNING)])
def test_without_a_cut_only_the_release_is_asked_for(found: Outcome) -> None:
    armed = Armed()
    assert heard(armed, found) == Evidence(before=Admissions(50, 0) if found.changed == [] else None)
    assert armed.words == ["hold", "ask"]


@pytest.mark.parametrize(
    ("found", "page", "is_said"),
    [
        (outcome(BEFORE), NEW, True),
        (outcome("", RUNNING), NEW, True),
        (outcome(BEFORE), "", False),  # it may not answer yet, or never say it
        (outcome(BEFORE, release="cc"), NEW, False),  # the former one
    ],
)
def test_the_new_release_may_have_answered_beside_the_proof(found: Outcome, page: str, is_said: bool) -> None:
    armed: Any = Armed(page=page)
    assert (is_all_said(HOST, found, armed), armed.words) == (is_said, ["ask"])


def test_clients_that_were_cut_are_asked_for_after_the_proof() -> None:
    armed: Any = Armed("10 2000 2002.00\n")
    assert (is_all_said(HOST, outcome(BEFORE, RUNNING), armed), armed.words) == (False, [])


def test_a_session_that_fails_beside_the_proof_has_said_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> Facts:
        raise DerpfleetError("the connection was lost")

    armed: Any = Armed()
    monkeypatch.setattr(armed, "ask", lost)
    assert not is_all_said(HOST, outcome(BEFORE), armed)


def test_the_former_release_that_still_answers_is_an_objection() -> None:
    found = heard(Armed("10 2000 2002.00\n"), outcome(BEFORE, RUNNING, release="cc"))
    assert objection(found) == "another release answers: bb"


def test_refusals_that_rise_are_an_objection() -> None:
    """One of the nine is the stranger of our proof."""
    found = heard(Armed("10 2000 2002.00\n", page=REFUSING), outcome(BEFORE, RUNNING))
    assert found.since == Admissions(26, 8)
    assert objection(found) == "31% of the clients are refused; before it were 0%"


def test_an_operator_who_stops_the_run_does_not_wait_for_clients() -> None:
    armed = Armed("0 2000 2003.00\n")
    armed.is_stopping = True
    assert heard(armed, outcome(BEFORE, RUNNING)).clients == CutOver(cut=10, back=0, seconds=None)
    assert armed.words == ["hold", "ask"]
