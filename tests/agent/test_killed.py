"""An agent that is killed at any step: the next contact makes the host old or new, never between.

Until then the host says that nobody has confirmed its changes, unless it is exactly as its newest
generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

import pytest

from engine.login import Unreachable
from engine.plan import sha256
from engine.resource import File, Resource, Service
from engine.run import Outcome
from tests.agent.driver import (
    DIE_AT_STEP,
    DIE_AT_STEP_OF_GOING_BACK,
    DIE_AT_STEP_OF_KEEPING,
    DIE_WHILE_ARMED,
    Agent,
    OnStage,
)
from tests.agent.generations import back, deploy, history, newest_of, record, roll_back, state
from tests.agent.plans import another_service, new, old

# Each step is a kill and two or three runs more. Eight tests take every eighth step each.
STARTS = pytest.mark.parametrize("start", range(1, 9))
LONG = pytest.mark.timeout(900)
States = Mapping[str, dict[str, str]]


def both(agent: Agent) -> tuple[States, str, str]:
    """Deploy new, then old. Return the states by the ids of the plans, and these: old and new."""
    deploy(agent, new())
    latter, after = history(agent).generations[0].plan, state(agent)
    deploy(agent, old())
    former, before = history(agent).generations[0].plan, state(agent)
    assert before != after
    return {former: before, latter: after}, former, latter


def go_to(agent: Agent, plan: str) -> Outcome:
    """Roll back to the newest generation of that plan."""
    return roll_back(agent, newest_of(agent, plan))


def dies(agent: Agent, extra: str, run: Callable[[], object]) -> bool:
    """Run with that module in the agent. Return whether the agent died of it."""
    agent.extra = extra
    try:
        run()
    except Unreachable:
        return True
    finally:
        agent.extra = ""
    return False


def assert_known(agent: Agent, states: States) -> None:
    """Check that a state that is no generation's is known to be unconfirmed."""
    known = history(agent)
    assert known.unconfirmed.plan or state(agent) == states[known.generations[0].plan]


def steps_survived(
    agent: Agent,
    extra: str,
    start: int,
    run: Callable[[str], object],
    first: Callable[[], object] = lambda: None,
) -> int:
    """Kill runs at every eighth step, look at the host, go on from there.

    `run` takes the plan of `old`, which is in force before `first`. Returns the first step that a
    run did not reach.
    """
    states, former, latter = both(agent)
    for step in count(start, 8):
        first()
        if not dies(agent, extra % step, lambda: run(former)):
            break
        assert_known(agent, states)
        if step % 16 > 8:
            assert deploy(agent, new()).ok
            assert state(agent) == states[latter], f"after a death at step {step}"
        assert go_to(agent, former).ok
        assert state(agent) == states[former], f"after a death at step {step}"
    return step


@LONG
@STARTS
def test_killed_at_any_step_of_a_cut_over(on_stage: OnStage, start: int) -> None:
    agent = on_stage()
    assert steps_survived(agent, DIE_AT_STEP, start, lambda _: deploy(agent, new())) > 40


@LONG
@STARTS
def test_killed_at_any_step_of_going_back(on_stage: OnStage, start: int) -> None:
    """The controller has said so, or has hung up: the steps are the same."""
    agent = on_stage()
    extra = DIE_AT_STEP_OF_GOING_BACK
    assert steps_survived(agent, extra, start, lambda _: deploy(agent, new(), back)) > 20


def naming(certificate: str) -> list[Resource]:
    """Return a plan with a program that loads a certificate, as nginx does.

    It is reloaded before the file that names the certificate is written, and refuses a lost one.
    """
    names = "/etc/names"
    loads = f'! test -e {names} || test -e "$(cat {names})"'
    listens = File(path="/etc/listens", content=certificate.encode())
    unit, _ = another_service()
    server = Service(unit="more.service", reload_on=(listens.id,), before=("sh", "-c", loads))
    chain = File(path=f"/etc/{certificate}", content=b"a chain\n")
    return [listens, unit, server, chain, File(path=names, content=chain.path.encode(), needs=(chain.id,))]


@LONG
def test_killed_at_any_step_of_going_back_from_another_certificate(on_stage: OnStage) -> None:
    """It is there for as long as a file names it."""
    agent = on_stage()
    assert deploy(agent, naming("one")).ok
    before = state(agent)
    for step in count(1):
        if not dies(agent, DIE_AT_STEP_OF_GOING_BACK % step, partial(deploy, agent, naming("two"), back)):
            break
        assert roll_back(agent, 1).failures == [], f"after a death at step {step}"
        assert state(agent) == before, f"after a death at step {step}"
    assert step > 20
    assert state(agent) == before


@LONG
@STARTS
def test_killed_at_any_step_of_a_stored_plan(on_stage: OnStage, start: int) -> None:
    agent = on_stage()
    first = partial(deploy, agent, new())
    assert steps_survived(agent, DIE_AT_STEP, start, lambda former: go_to(agent, former), first) > 40


@pytest.mark.parametrize("contact", ["kept", "taken back", "rollback"])
def test_killed_while_armed(on_stage: OnStage, contact: str) -> None:
    agent = on_stage()
    states, former, latter = both(agent)
    assert dies(agent, DIE_WHILE_ARMED, lambda: deploy(agent, new()))
    known = history(agent)
    assert (known.unconfirmed.plan, known.unconfirmed.verb) == (latter, "deploy")
    assert state(agent) == states[latter]
    if contact == "kept":  # nothing is left to change, and still it asks for a proof
        outcome = deploy(agent, new())
        assert (outcome.counts["changed"], outcome.generation) == (0, known.newest + 1)
    elif contact == "taken back":
        assert deploy(agent, new(), back).generation == known.newest
    else:
        assert go_to(agent, former).generation == known.newest
    assert state(agent) == states[latter if contact == "kept" else former]
    assert history(agent).unconfirmed.plan == ""


def test_killed_at_any_step_of_keeping_one_generation_too_many(on_stage: OnStage) -> None:
    """The oldest one is let go of: the states from before it move to generation 0."""

    def plain(number: int) -> list[Resource]:
        return [File(path="/etc/plain", content=b"%d\n" % number)]

    agent = on_stage()
    (agent.stage.root / "etc/plain").write_text("found\n")
    for number in range(10):
        deploy(agent, plain(number))
    for step in count(1):
        next_one = plain(10 + step)
        has_died = dies(agent, DIE_AT_STEP_OF_KEEPING % step, partial(deploy, agent, next_one))
        assert (agent.stage.root / "etc/plain").read_text() == f"{10 + step}\n"
        assert deploy(agent, next_one).ok
        known = history(agent)
        assert known.unconfirmed.plan == ""
        assert len(known.generations) == 10, f"after a death at step {step}"
        assert record(agent, 0)["found"]["/etc/plain"]["was"]["sha256"] == sha256(b"found\n")
        if not has_died:
            break
    assert step > 8
    assert roll_back(agent, history(agent).generations[-1].number).ok
    assert (agent.stage.root / "etc/plain").read_text() != f"{10 + step}\n"
