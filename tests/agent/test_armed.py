"""An armed plan, killed or cut off at any step: the host is at the old or the new state."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import pytest

from engine import session
from engine.login import Unreachable
from engine.resource import File, Resource
from engine.run import Outcome
from engine.session import Locked, Session
from inventory.errors import DerpfleetError
from tests.agent.driver import DIE_AT_STEP, Agent, OnStage
from tests.agent.generations import deploy, deployed, history, keep, roll_back, state
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
        with pytest.raises(Locked) as locked:
            deploy(agent, new())
        assert "that nobody has confirmed, after generation 1" in locked.value.why
        session.back()

    assert deploy(agent, new(), judge).generation == 1


def go_to(agent: Agent, plan: str) -> Outcome:
    """Roll back to the newest generation of that plan."""
    return roll_back(agent, next(one.number for one in history(agent).generations if one.plan == plan))


def dies(agent: Agent, step: int, run: Callable[[], object]) -> bool:
    """Kill the agent at that step of a run. Return whether the run has so many."""
    agent.extra = DIE_AT_STEP % step
    try:
        run()
    except Unreachable:
        return True
    finally:
        agent.extra = ""
    return False


@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", range(1, 9))
def test_killed_at_any_step_of_a_cut_over_the_next_contact_makes_it_old_or_new(
    on_stage: OnStage, start: int
) -> None:
    """Steps are those of `DIE_AT_STEP`. Eight tests take every eighth step each."""
    agent = on_stage()
    deploy(agent, new())
    after = state(agent)
    deploy(agent, old())
    before, plan = state(agent), history(agent).generations[0].plan
    for step in count(start, 8):
        if not dies(agent, step, lambda: deploy(agent, new())):
            break
        if step % 16 > 8:
            assert deploy(agent, new()).ok
            assert state(agent) == after, f"after a death at step {step}"
        assert go_to(agent, plan).ok
        assert state(agent) == before, f"after a death at step {step}"
    assert step > 40


@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", range(1, 9))
def test_killed_at_any_step_of_the_way_back_the_next_contact_goes_on(on_stage: OnStage, start: int) -> None:
    agent = on_stage()
    deploy(agent, old())
    before, plan = state(agent), history(agent).generations[0].plan
    for step in count(start, 8):
        deploy(agent, new())
        if not dies(agent, step, lambda: go_to(agent, plan)):
            break
        assert go_to(agent, plan).ok
        assert state(agent) == before, f"after a death at step {step}"
    assert step > 40
