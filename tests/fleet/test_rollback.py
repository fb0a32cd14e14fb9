"""`invoke rollback` and `invoke history`: which generation is meant, and what is refused."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from invoke import Context

import rollout_tasks
from engine.facts import Facts
from engine.generations import Generation, History
from engine.report import Report
from engine.session import Session
from fleet import history, rollback, uninstall
from fleet.rollback import NoGeneration
from fleet.shared import step
from fleet.shared.fleet import Fleet
from fleet.shared.seen import SiteDiffers, former, settings
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import paths
from tests.fleet.generations import HOST, KNOWN, LEFT, SITE, generation, known, outcome
from tests.support.facts import DEBIAN_12, EMPTY_FILE


def stored(fleet: Fleet, history: History, to: str = "", host: Host = HOST, facts: Facts = DEBIAN_12) -> int:
    session: Any = SimpleNamespace(history=lambda: history, facts=facts)
    return rollback._plan(fleet, host, to, False, session).number


@pytest.mark.parametrize(("note", "state"), [("withdrawn\n", "withdrawn"), ("drained\n", "drained")])
def test_a_relay_out_of_service_is_brought_back_into_service(
    fleet: Fleet, shown: io.StringIO, note: str, state: str
) -> None:
    out = replace(DEBIAN_12, files={paths.WITHDRAWN: replace(EMPTY_FILE, content=note)})
    assert stored(fleet, KNOWN, facts=out) == 1
    assert f"its relay is {state}; a rollback brings it back into service" in shown.getvalue()


def test_one_back_is_the_last_state_that_was_another(fleet: Fleet, shown: io.StringIO) -> None:
    assert stored(fleet, KNOWN) == 1
    assert "generation 3 (" in shown.getvalue() and "→ 1 (" in shown.getvalue()
    assert stored(fleet, KNOWN, "2") == 2


def test_unconfirmed_changes_are_taken_back_first(fleet: Fleet) -> None:
    assert stored(fleet, known(generation(3, "b"), generation(1, "a"), left=LEFT)) == 3


@pytest.mark.parametrize(
    ("history", "to", "what", "why"),
    [
        (KNOWN, "7", "no generation 7", "in force now: generation 3 ("),
        (known(generation(1, "a")), "", "no generation to go back to", "in force now: generation 1 ("),
        (known(), "", "no generation to go back to", "no generation at all"),
        (known(generation(2, "b"), Generation(number=1, trouble="made by a newer derpfleet")), "1",
         "made by a newer derpfleet", "in force now: generation 2"),
    ],
)  # fmt: skip
def test_an_unknown_generation_is_refused_with_what_is_in_force(
    fleet: Fleet, history: History, to: str, what: str, why: str
) -> None:
    with pytest.raises(NoGeneration, match=what) as refused:
        stored(fleet, history, to)
    assert why in refused.value.why
    assert "invoke history --host hk1" in refused.value.next
    kept = ", ".join(str(one.number) for one in history.generations)
    assert refused.value.why.endswith(f"kept are: {kept} and found" if kept else "kept are: only found")


@pytest.mark.parametrize("to", ["found", "0"])
def test_zero_is_the_host_as_it_was_found(monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    done: list[Host] = []
    fleet: Any = SimpleNamespace(managed=lambda names: [HOST])
    monkeypatch.setattr(rollout_tasks, "with_site", lambda _, work, **__: work(fleet))
    monkeypatch.setattr(uninstall, "uninstall", lambda _, host, **__: done.append(host))
    rollout_tasks.rollback(Context(), "hk1", to=to)
    assert done == [HOST]
    with pytest.raises(DerpfleetError, match="--force has no meaning when all of derpfleet is taken off"):
        rollout_tasks.rollback(Context(), "hk1", to=to, force=True)
    assert done == [HOST]


@pytest.mark.parametrize(
    ("dry_run", "changed", "drift", "says"),
    [
        (False, 2, [], "What does not come back"),
        (False, 0, [], ""),
        (True, 2, ["file:/etc/x"], "A rollback is refused while files are edited"),
        (True, 2, [], ""),
    ],
)
def test_what_stays_is_said_of_a_way_back_that_changed_something(
    fleet: Fleet,
    shown: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    dry_run: bool,
    changed: int,
    drift: list[str],
    says: str,
) -> None:
    counts = {"ok": 1, "changed": changed, "failed": 0, "skipped": 0}
    went = replace(outcome(drift=drift), counts=counts)
    monkeypatch.setattr(rollback, "run_confirmed", lambda *_: went)
    rollback.rollback(fleet, HOST, to="", dry_run=dry_run, force=False)
    text = shown.getvalue()
    assert (says in text) if says else not text


def test_an_edited_file_has_a_line_of_its_own(fleet: Fleet, shown: io.StringIO) -> None:
    event = {"event": "stored", "generation": 1, "newest": 2, "drift": ["file:/etc/x"], "stays": []}
    fleet.report.agent_event("hk1", event)
    assert "edited       file:/etc/x  by hand, since generation 2" in shown.getvalue()


@pytest.mark.parametrize(
    ("text", "seen"), [(settings(HOST), json.loads(settings(HOST))), ("[", {}), ("[1]", {}), ("", {})]
)
def test_the_settings_of_a_generation_are_an_object_in_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, seen: object
) -> None:
    fleet = Fleet(SITE, Report(json_lines=True))
    one = generation(3, "b", about={"release": "relay b", "seen": text})
    history._show_generation(fleet, HOST, one, in_force=True)
    said = json.loads(capsys.readouterr().out)
    assert said["about"] == {"release": "relay b", "seen": seen}


def test_unconfirmed_changes_are_said_to_be_in_force(fleet: Fleet) -> None:
    with pytest.raises(NoGeneration) as refused:
        stored(fleet, known(generation(3, "b"), left=LEFT), "7")
    assert "in force now: changes of bob@desk that nobody has confirmed" in refused.value.why


def test_a_generation_of_other_ports_needs_the_site_file_of_then(fleet: Fleet) -> None:
    moved = HOST.model_copy(update={"ports": HOST.ports.model_copy(update={"https": 8443})})
    other = known(generation(2, "b"), generation(1, "a", about={"seen": settings(moved)}))
    with pytest.raises(SiteDiffers) as refused:
        stored(fleet, other)
    assert "hosts.hk1.ports.https was 8443, and is 443" in refused.value.why
    assert "in force now: generation 2 (" in refused.value.why
    assert stored(fleet, other, host=moved) == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ports": 1}', '{"relay": {}, "ports": {"https": "x"}}'])
def test_settings_that_make_no_sense_are_those_of_the_site_file(text: str) -> None:
    assert former(HOST, text) == HOST


def test_no_command_of_a_host_gets_into_the_site() -> None:
    """A host may report anything; a reference may be a command, which the controller would run."""
    evil = '{"relay": {}, "certificate": {"key": "cmd:evil"}, "ssh": {"sudo_password": "cmd:evil"}}'
    assert former(HOST, evil) == HOST


def test_history_shows_generations_and_what_nobody_confirmed(
    fleet: Fleet, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = nullcontext(SimpleNamespace(history=lambda: known(*KNOWN.generations, left=LEFT)))
    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: reading)
    assert history.history(fleet, [HOST]) == 0
    text = shown.getvalue()
    assert "bob@desk  deploy confirms it, rollback takes it back" in text
    assert "relay b" in text and "in force" not in text
    assert "0  before derpfleet; invoke rollback --host hk1 --to found takes derpfleet off" in text


def test_history_ends_with_the_host_as_it_was_found(fleet: Fleet, shown: io.StringIO) -> None:
    found = replace(known(generation(3, "b")), since=1.0, lost=("file:/etc/theirs",))
    assert history._show(fleet, HOST, found) == 0
    assert "as found       0  before 1970-01-01 00:00; invoke rollback" in shown.getvalue()
    assert "stays        file:/etc/theirs  its content of then is not kept" in shown.getvalue()


def test_a_host_that_cannot_be_asked_has_its_own_error(
    fleet: Fleet, shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Session:
        raise DerpfleetError("no connection")

    monkeypatch.setattr(Fleet, "session_for_reading", fail)
    assert history.history(fleet, [HOST]) == 1
    assert "no connection" in shown.getvalue()


def test_a_number_that_is_none_is_refused(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "converge", lambda *_, **__: pytest.fail("nothing may run"))
    with pytest.raises(DerpfleetError, match="--to takes a number"):
        rollback.rollback(fleet, HOST, to="yesterday", dry_run=False, force=False)
