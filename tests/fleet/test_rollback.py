"""`invoke rollback` and `invoke history`: which generation is meant, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.facts import Facts
from engine.generations import Generation, History
from engine.session import Session
from fleet import history, rollback
from fleet.rollback import NoGeneration
from fleet.shared import step
from fleet.shared.fleet import Fleet
from fleet.shared.seen import SiteDiffers, former, settings
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import paths
from tests.fleet.generations import HOST, KNOWN, LEFT, generation, known
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


def test_a_generation_of_other_ports_needs_the_site_file_of_then(fleet: Fleet) -> None:
    moved = HOST.model_copy(update={"ports": HOST.ports.model_copy(update={"https": 8443})})
    other = known(generation(2, "b"), generation(1, "a", about={"seen": settings(moved)}))
    with pytest.raises(SiteDiffers) as refused:
        stored(fleet, other)
    assert "hosts.hk1.ports.https was 8443, and is 443" in refused.value.why
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
    class Reading:
        def __enter__(self) -> Any:
            return SimpleNamespace(history=lambda: known(*KNOWN.generations, left=LEFT))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(Fleet, "session_for_reading", lambda *_: Reading())
    assert history.history(fleet, [HOST]) == 0
    text = shown.getvalue()
    assert "bob@desk  deploy confirms it, rollback takes it back" in text
    assert "relay b" in text and "in force" not in text


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
