"""An armed plan whose controller hangs up, is silent or has a rival: the old state comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import pytest

from engine import session
from engine.crash import AgentCrashed
from engine.events import Event
from engine.facts import Ask
from engine.login import Unreachable
from engine.run import Outcome
from engine.session import Locked, Session
from fleet.shared import held
from inventory.errors import DerpfleetError
from tests.agent.driver import OnStage
from tests.agent.generations import HungUp, await_free, deploy, hang_up_at, history, state
from tests.agent.plans import new, old


def at_event(number: int) -> Callable[[Event], None]:
    """Return a listener that hangs up at that event of a run, of the first one on."""
    left = [number]

    def hear(_: Event) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise HungUp

    return hear


def talk(_: Outcome, session: Session) -> None:
    """Say every word that leaves an armed plan waiting, then take it back."""
    session.hold()
    session.ask(Ask(files=("/etc/hostname",)))
    session.history()
    session.back()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", range(1, 5))
def test_a_hang_up_at_any_event_before_the_word_to_keep_leads_back(on_stage: OnStage, start: int) -> None:
    """Also while it is applied, and on the way back itself. Four tests take every fourth event."""
    agent = on_stage()
    deploy(agent, old())
    before = state(agent)
    for number in count(start, 4):
        try:
            deploy(agent, new(), talk, on_event=at_event(number))
        except HungUp:
            found = await_free(agent)
        else:
            break
        assert state(agent) == before, f"after event {number}"
        assert [one.number for one in found.generations] == [1]
        assert found.unconfirmed.plan == ""
    assert number > 30


def test_a_hang_up_after_the_word_to_keep_changes_nothing(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, old())

    with pytest.raises(HungUp):
        deploy(agent, new(), on_event=hang_up_at("kept"))
    found = await_free(agent)
    after = state(agent)
    assert (found.newest, found.unconfirmed.plan) == (2, "")
    assert deploy(agent, new()).counts["changed"] == 0
    assert state(agent) == after


def test_silence_leads_back_and_a_late_word_keeps_nothing(
    on_stage: OnStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_WITHIN_S", 1)
    agent, kept = on_stage(), []
    deploy(agent, old())
    before = state(agent)

    def sleep(_: Outcome, session: Session) -> None:
        time.sleep(4)
        kept.append(session.keep({}))

    outcome = deploy(agent, new(), sleep)
    assert (kept, outcome.generation, state(agent)) == ([False], 1, before)


def test_a_question_after_the_way_back_finds_its_report_and_the_end(
    on_stage: OnStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a judge asks whose machine was asleep: the host is not lost, and said so."""
    monkeypatch.setattr(session, "_WITHIN_S", 1)
    agent, ends = on_stage(), list[bool]()
    deploy(agent, old())
    before = state(agent)

    def sleep(outcome: Outcome, session: Session) -> None:
        time.sleep(4)
        session.hold()
        with pytest.raises(Unreachable):
            session.ask(Ask(files=("/etc/hostname",)))
        ends.append(outcome.has_gone_back)

    outcome = deploy(agent, new(), sleep)
    assert (ends, outcome.generation, state(agent)) == ([True], 1, before)


def test_a_hold_makes_it_wait_longer(on_stage: OnStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_WITHIN_S", 3)
    agent = on_stage()
    deploy(agent, old())

    def hold(_: Outcome, session: Session) -> None:
        for _ in range(4):
            session.hold()
            time.sleep(1.2)
        session.keep({})

    assert deploy(agent, new(), hold).generation == 2


@pytest.mark.parametrize(("longest_s", "kept"), [(60, True), (0.5, False)])
def test_it_waits_while_the_judge_works_and_not_for_ever(
    on_stage: OnStage, monkeypatch: pytest.MonkeyPatch, longest_s: float, kept: bool
) -> None:
    """Another host that is asked meanwhile may hardly answer."""
    monkeypatch.setattr(session, "_WITHIN_S", 1)
    monkeypatch.setattr(held, "_EVERY_S", 0.3)
    monkeypatch.setattr(held, "_LONGEST_S", longest_s)
    agent, said = on_stage(), []
    deploy(agent, old())

    def judge(_: Outcome, session: Session) -> None:
        with held.held(session):
            time.sleep(3)
        said.append(session.keep({}))

    assert deploy(agent, new(), judge).generation == (2 if kept else 1)
    assert said == [kept]


def test_of_two_controllers_the_second_waits(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, old())

    def judge(_: Outcome, session: Session) -> None:
        with pytest.raises(Locked) as locked:
            deploy(agent, new())
        assert "that nobody has confirmed, after generation 1" in locked.value.why
        session.back()

    assert deploy(agent, new(), judge).generation == 1


def test_no_room_for_a_generation_is_said_with_what_is_in_force(on_stage: OnStage) -> None:
    agent, folder = on_stage(), "/var/lib/derpfleet/backups"
    deploy(agent, old())

    def keep_without_room(_: Outcome, session: Session) -> None:
        assert agent.stage.run("mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder).returncode == 0
        (agent.stage.root / folder[1:] / "full").write_bytes(bytes(4096))
        session.keep({})

    with pytest.raises(DerpfleetError, match="in force, but the host cannot keep it") as refused:
        deploy(agent, new(), keep_without_room)
    assert refused.value.why.startswith("No space left on device; in force are changes of ")
    assert (history(agent).newest, history(agent).unconfirmed.verb) == (1, "deploy")
    after = state(agent)
    assert agent.stage.run("umount", "--lazy", folder).returncode == 0
    assert deploy(agent, new()).generation == 2
    assert state(agent) == after


CRASH = """
from agent import {module}
place, real = {place}, {place}.{name}
def broken(*arguments):
    place.{name} = real
    raise {error}("a defect")
place.{name} = broken
"""


@pytest.mark.parametrize("error", ["KeyError", "MemoryError", "RecursionError"])
@pytest.mark.parametrize(
    ("module", "place", "name"),
    [
        ("paths", "paths.File", "fix"),
        ("paths", "paths", "write_atomically"),
        ("converge", "converge", "restore_labels"),
        ("armed", "armed", "settle"),
        ("armed", "armed", "keep"),
    ],
)
def test_a_defect_of_the_agent_leads_back(
    on_stage: OnStage, module: str, place: str, name: str, error: str
) -> None:
    """While it fixes a resource, writes a file, waits for the word, and keeps the plan."""
    agent = on_stage()
    deploy(agent, old())
    before = state(agent)
    agent.extra = CRASH.format(module=module, place=place, name=name, error=error)
    with pytest.raises(AgentCrashed, match="the agent crashed") as crashed:
        deploy(agent, new())
    assert error in crashed.value.why
    agent.extra = ""
    found = history(agent)
    assert (found.newest, found.unconfirmed.plan, state(agent)) == (1, "", before)
