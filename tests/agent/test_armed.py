"""An armed plan, killed or cut off at any step: the host is at the old or the new state."""

from __future__ import annotations

import time
from itertools import count

import pytest

from engine import session
from engine.login import Unreachable
from engine.resource import File, Resource
from engine.run import Outcome
from engine.session import Session
from inventory.errors import DerpfleetError
from tests.agent.driver import DIE_AT_STEP, Agent, OnStage
from tests.agent.generations import deploy, deployed, history, keep, returned, roll_back, state
from tests.agent.plans import relay_host


class HungUp(Exception):
    """The controller is gone."""


def hang_up(_: Outcome, session: Session) -> None:
    raise HungUp


def old() -> list[Resource]:
    return relay_host()


def new() -> list[Resource]:
    return [*relay_host(setting="two", fin_timeout_s=35), File(path="/etc/more", content=b"new\n")]


def await_free(agent: Agent) -> None:
    """Wait until the agent has ended, and with it its lock."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            history(agent)
        except DerpfleetError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError("the agent does not end")


def test_a_hang_up_leads_back_at_once(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, old())
    before = state(agent)
    with pytest.raises(HungUp):
        deploy(agent, new(), hang_up)
    await_free(agent)
    assert state(agent) == before
    assert [one.number for one in history(agent).generations] == [1]
    assert history(agent).unconfirmed.plan == ""


def test_a_hang_up_while_it_is_applied_leads_back(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, old())
    before = state(agent)

    def cut(event: dict[str, object]) -> None:
        if event["event"] == "result" and event["status"] == "changed":
            raise HungUp

    with pytest.raises(HungUp):
        agent.run_job(deployed(new()), judge=keep, on_event=cut)
    await_free(agent)
    assert state(agent) == before


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


def test_of_two_controllers_the_second_waits(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, old())

    def judge(_: Outcome, session: Session) -> None:
        with pytest.raises(session_locked()):
            deploy(agent, new())
        session.back()

    assert deploy(agent, new(), judge).generation == 1


def session_locked() -> type[Exception]:
    return session.Locked


@pytest.mark.parametrize("start", range(1, 9))
def test_killed_at_any_step_of_a_cut_over_the_next_contact_finds_old_or_new(
    on_stage: OnStage, start: int
) -> None:
    """Steps are those of `DIE_AT_STEP`. Eight tests take every 24th step each.

    The way back and forth is taken in turn.
    """
    agent = on_stage()
    deploy(agent, old())
    before = state(agent)
    assert roll_back_after_death(agent, start, before)


def roll_back_after_death(agent: Agent, start: int, before: dict[str, str]) -> bool:
    """Let an agent die at every 24th step of a cut-over. Return whether one lived in the end."""
    after: dict[str, str] = {}
    for step in count(start, 24):
        agent.extra = DIE_AT_STEP % step
        try:
            deploy(agent, new())
        except Unreachable:
            agent.extra = ""
        else:
            agent.extra = ""
            return step > 24
        if history(agent).newest % 2 == 0 and not history(agent).unconfirmed.plan:
            after = after or state(agent)
            assert state(agent) == after
            roll_back(agent, history(agent).newest - 1)
        else:
            number = history(agent).newest
            assert roll_back(agent, number if number % 2 else number - 1).failures == []
        assert state(agent) == before, f"after a death at step {step}"
    return False


@pytest.mark.parametrize("start", range(1, 5))
def test_killed_at_any_step_of_the_way_back_it_goes_on(on_stage: OnStage, start: int) -> None:
    agent = on_stage()
    deploy(agent, old())
    before = state(agent)
    for step in count(start, 12):
        deploy(agent, new())
        newest = history(agent).newest
        agent.extra = DIE_AT_STEP % step
        try:
            agent.run_job(returned(newest - 1), judge=keep)
        except Unreachable:
            agent.extra = ""
        else:
            agent.extra = ""
            assert state(agent) == before
            assert step > 12
            return
        back_to = newest - 1 if history(agent).newest == newest else history(agent).newest
        assert roll_back(agent, back_to).failures == []
        assert state(agent) == before, f"after a death at step {step}"
