"""Whole plans, on every CPython at hand.

A second run changes nothing, a check touches nothing, and the next run converges after a power cut.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from engine.resource import Resource
from tests.agent.conftest import PYTHONS
from tests.agent.driver import DIE_AFTER_RESULT, DIE_AT_STEP, Agent, OnStage
from tests.agent.plans import relay_host


def test_the_pythons_at_hand_are_reported(record_property: Callable[[str, object], None]) -> None:
    record_property("pythons", " ".join(PYTHONS))
    assert PYTHONS, "no CPython 3.6 or newer"


def test_twice_is_no_change(on_stage: OnStage, python: str) -> None:
    agent, wanted = on_stage(python), relay_host()
    (agent.stage.root / "etc/relay").mkdir()
    (agent.stage.root / "etc/relay/old.conf").write_text("old")

    first = agent.run(wanted)
    assert (first.failures, first.counts["changed"]) == ([], len(wanted))
    stamps = agent.stamps()
    agent.forget()

    second = agent.run(wanted)
    assert second.counts == {"ok": len(wanted), "changed": 0, "failed": 0, "skipped": 0}
    assert (agent.stamps(), agent.log()) == (stamps, [])


def test_a_check_finds_everything_and_changes_nothing(on_stage: OnStage, python: str) -> None:
    agent, wanted = on_stage(python), relay_host()
    before, state = {**agent.stamps(), **agent.tree()}, kernel(agent)

    outcome = agent.run(wanted, mode="check")

    assert outcome.counts["changed"] > len(wanted) - 3
    assert ({**agent.stamps(), **agent.tree()}, kernel(agent), agent.log()) == (before, state, [])

    agent.run(wanted)
    before = {**agent.stamps(), **agent.tree()}
    agent.forget()
    assert agent.run(relay_host(setting="two"), mode="check").changed == [
        "file:/etc/relay/relay.env", "command:copy", "service:relay.service",
    ]  # fmt: skip
    assert ({**agent.stamps(), **agent.tree()}, agent.log()) == (before, [])


def test_killed_between_any_two_resources_the_next_run_goes_on(on_stage: OnStage, python: str) -> None:
    reference = converged(on_stage(python), relay_host())
    agent, wanted = on_stage(python), relay_host()
    for number in range(1, len(wanted)):
        assert agent.dies(wanted, DIE_AFTER_RESULT % number)
    assert agent.run(wanted).failures == []
    assert agent.tree() == reference
    assert agent.run(wanted).counts["ok"] == len(wanted)
    agent.forget()
    changed = relay_host(setting="two")
    place = [resource.id for resource in changed].index("file:/etc/relay/relay.env") + 1
    assert agent.dies(changed, DIE_AFTER_RESULT % place)
    # Both are owed since before the cut.
    assert agent.run(changed).changed == ["command:copy", "service:relay.service"]
    assert agent.log() == ["systemctl restart relay.service"]
    assert (agent.stage.root / "srv/copy").read_text() == "SETTING=two\n"


@pytest.mark.parametrize("start", range(1, 9))
def test_killed_at_any_step_the_next_run_converges(on_stage: OnStage, start: int) -> None:
    """A step is a system call of the agent that writes, or a program that it starts.

    Eight tests take every eighth step each.
    """
    wanted = relay_host()
    reference = converged(on_stage(), wanted)
    for step in count(start, 8):
        agent = on_stage()
        if not agent.dies(wanted, DIE_AT_STEP % step):
            break
        assert agent.run(wanted).failures == []
        assert agent.tree() == reference, f"after a death at step {step}"
        agent.stage.stop()
    assert step > 100


def converged(agent: Agent, wanted: list[Resource]) -> dict[str, str]:
    """Return the tree after an undisturbed run."""
    assert agent.run(wanted).ok
    tree = agent.tree()
    agent.stage.stop()
    return tree


def kernel(agent: Agent) -> str:
    """Return the state that the agent may change outside of files."""
    return (
        agent.stage.run("sysctl", "net.ipv4.tcp_fin_timeout").stdout
        + agent.stage.run("nft", "list", "ruleset").stdout
    )
