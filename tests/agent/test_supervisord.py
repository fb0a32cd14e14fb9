"""Programs of supervisord."""

from __future__ import annotations

from engine.resource import SupervisorProgram
from tests.agent.driver import OnStage

# A program that crashed and was started again: STARTING for its first seconds.
CONTROL = """#!/bin/sh
echo "$*" >>/var/fake/log
asked=$(grep -c status /var/fake/log)
[ "$asked" -gt 3 ] && state=RUNNING || state=STARTING
echo "relay                  $state   pid 1, uptime 0:00:01"
"""


def test_a_program_that_was_just_started_again_is_no_change(on_stage: OnStage) -> None:
    agent = on_stage(files={"/var/fake/bin/supervisorctl": CONTROL})
    assert agent.run([SupervisorProgram(program="relay")]).changed == []
    log = (agent.stage.root / "var/fake/log").read_text()
    assert "restart" not in log and "update" not in log
