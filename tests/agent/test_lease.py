"""The lease of a site's rollouts: one holder, a number that grows, and a ledger that lasts."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from engine.run import Job, Verb
from engine.session import Locked, Session
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import deploy, deployed, keep
from tests.agent.plans import relay_host


def holding(agent: Agent, work: Callable[[Session], object]) -> None:
    """Do `work` with a session, which holds no lock of the host."""

    def plan(session: Session) -> tuple[()]:
        work(session)
        return ()

    agent.run_job(Job(verb=Verb.CHECK, plan=plan))


def leased(agent: Agent) -> tuple[int, list[dict[str, object]]]:
    found: list[tuple[int, list[dict[str, object]]]] = []
    holding(agent, lambda session: found.append(session.lease()))
    return found[0]


def test_each_lease_has_a_higher_number_and_the_ledger_of_the_last(on_stage: OnStage, python: str) -> None:
    agent = on_stage(python)

    def begin(session: Session) -> None:
        number, lines = session.lease()
        assert (number >= int(time.time()) - 60, lines) == (True, [])
        session.note({"rollout": "a"}, begins=True)
        session.note({"kind": "prepared", "host": "hk1"}, {"kind": "prepared", "host": "sg1"})

    holding(agent, begin)
    number, lines = leased(agent)
    assert lines == [{"rollout": "a"}, *({"kind": "prepared", "host": name} for name in ("hk1", "sg1"))]
    holding(agent, lambda session: (session.lease(), session.note({"rollout": "b"}, begins=True)))
    again, lines = leased(agent)
    assert again > number
    assert lines == [{"rollout": "b"}]


def test_a_torn_line_is_left_out(on_stage: OnStage) -> None:
    agent = on_stage()
    holding(agent, lambda session: (session.lease(), session.note({"rollout": "a"}, begins=True)))
    path = agent.stage.root / "var/lib/derpfleet/rollout.jsonl"
    path.write_text(path.read_text() + '{"kind": "prep')
    holding(agent, lambda session: (session.lease(), session.note({"kind": "aborted"})))
    assert leased(agent)[1] == [{"rollout": "a"}, {"kind": "aborted"}]


def test_of_two_controllers_one_has_it(on_stage: OnStage) -> None:
    agent = on_stage()

    def second(session: Session) -> None:
        session.lease()
        with pytest.raises(Locked, match=r"locked by .*@"):
            leased(agent)

    holding(agent, second)
    assert leased(agent)[0]


def test_nobody_writes_to_a_ledger_without_the_lease(on_stage: OnStage) -> None:
    agent = on_stage()
    with pytest.raises(Exception, match=r"connection was lost|ended"):
        holding(agent, lambda session: session.note({"rollout": "a"}, begins=True))
    assert not (agent.stage.root / "var/lib/derpfleet/rollout.jsonl").exists()


def test_a_host_refuses_a_lower_number_than_it_has_seen(on_stage: OnStage, python: str) -> None:
    """P11: a controller that was asleep meanwhile changes nothing."""
    agent = on_stage(python)
    plan = deployed(relay_host())
    newer, older = Job(verb=plan.verb, plan=plan.plan, about=plan.about, fence=42), 41
    assert agent.run_job(newer, judge=keep).generation == 1
    stale = Job(verb=plan.verb, plan=lambda _: relay_host(setting="two"), about=plan.about, fence=older)
    with pytest.raises(Locked, match=r"locked by .*@"):
        agent.run_job(stale, judge=keep)
    assert "one" in (agent.stage.root / "etc/relay/relay.env").read_text()
    assert agent.run_job(newer, judge=keep).ok
    assert deploy(agent, relay_host(setting="two")).generation == 2
