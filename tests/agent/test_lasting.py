"""A service that starts again and again is no running one, also when it answers in between (K7)."""

from __future__ import annotations

import pytest

from tests.agent.driver import OnStage, failure
from tests.agent.plans import FOLDER, UNIT, environment, service

FAST_LOOP = """
from agent import service
service.LOOP_S = 2
"""


@pytest.mark.parametrize("words", [b"crashes\n", b"fine\n"])
def test_health_has_to_last(on_stage: OnStage, words: bytes) -> None:
    """The fake is healthy at each look. Its process is another one each time."""
    agent = on_stage()
    outcome = agent.run([FOLDER, UNIT, environment(words), service(lasts_s=2)])
    assert outcome.ok == (words == b"fine\n")
    if not outcome.ok:
        id_, what, why = failure(outcome)
        assert (id_, what) == (
            "service:relay.service", "service:relay.service was healthy for less than 2 s"
        )
        assert why.startswith("its process ended, and another one was started")


def test_a_loop_of_crashes_that_is_met_while_it_answers_is_found(on_stage: OnStage) -> None:
    agent = on_stage()
    plan = [FOLDER, UNIT, environment(b"fine\n"), service()]
    assert agent.run(plan).ok
    loops = agent.stage.root / "var/fake/units/relay.service.loops"
    loops.write_text("NRestarts=1\n")  # one crash, and it went on
    assert agent.run(plan).changed == []
    loops.write_text("NRestarts=7\n")
    agent.extra = FAST_LOOP
    checked = agent.run(plan, mode="check")
    assert checked.changed == ["service:relay.service"]
    agent.forget()
    assert agent.run(plan).changed == ["service:relay.service"]
    assert agent.log() == ["systemctl restart relay.service"]


def test_a_loop_of_crashes_that_a_restart_does_not_end_is_a_failure(on_stage: OnStage) -> None:
    agent = on_stage()
    plan = [FOLDER, UNIT, environment(b"crashes\n"), service()]
    assert agent.run(plan).ok  # nobody asked that it lasts
    (agent.stage.root / "var/fake/units/relay.service.loops").write_text("NRestarts=7\n")
    agent.extra = FAST_LOOP
    assert failure(agent.run(plan))[1] == "service:relay.service was healthy for less than 2 s"
