"""A run that dies leaves its restarts as debts, with what to put back. A later run pays them."""

from __future__ import annotations

from pathlib import Path

from engine.resource import Directory, File, Service
from tests.agent.driver import DIE_AFTER_RESULT, Agent, OnStage, failure
from tests.agent.plans import relay_host

UNIT = File(path="/etc/systemd/system/relay.service", content=b"[Service]\nExecStart=/bin/true\n")
FOLDER = Directory(path="/etc/relay")


def plan(setting: bytes) -> list[Directory | File | Service]:
    environment = File(path="/etc/relay/relay.env", content=setting)
    service = Service(unit="relay.service", restart_on=(UNIT.id, environment.id), timeout_s=1)
    return [FOLDER, environment, UNIT, service]


def state(agent: Agent) -> Path:
    return agent.stage.root / "var/lib/derpfleet"


def test_who_pays_a_dead_runs_debt_puts_back_its_changes(on_stage: OnStage) -> None:
    agent, broken = on_stage(), plan(b"broken\n")
    assert agent.run(plan(b"good\n")).ok
    assert agent.dies(broken, DIE_AFTER_RESULT % 2)

    why = failure(agent.run(broken))[2]

    assert why.endswith("put back: file:/etc/relay/relay.env")
    assert (agent.stage.root / "etc/relay/relay.env").read_text() == "good\n"
    assert agent.run(plan(b"good\n")).counts["ok"] == 4
    assert list((state(agent) / "owed").iterdir()) == []


def test_the_state_before_two_dead_runs_is_put_back(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run(plan(b"good\n")).ok
    for setting in (b"broken\n", b"broken too\n"):
        assert agent.dies(plan(setting), DIE_AFTER_RESULT % 2)
    assert "put back" in failure(agent.run(plan(b"broken again\n")))[2]
    assert (agent.stage.root / "etc/relay/relay.env").read_text() == "good\n"


def test_a_debt_of_an_older_version_is_paid(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run(plan(b"good\n")).ok
    (state(agent) / "owed/service%3Arelay.service").write_text("restart")
    agent.forget()
    assert agent.run(plan(b"good\n")).changed == ["service:relay.service"]
    assert agent.log() == ["systemctl restart relay.service"]


def test_runs_that_change_nothing_push_no_backup_out(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run(relay_host(setting="one")).ok
    assert agent.run(relay_host(setting="two")).ok
    kept = sorted(path.name for path in (state(agent) / "backups").iterdir())
    assert kept
    for _ in range(21):
        assert agent.run(relay_host(setting="two")).counts["changed"] == 0
    assert sorted(path.name for path in (state(agent) / "backups").iterdir()) == kept
    # Two runs in one second share their journal.
    assert len(list((state(agent) / "journal").iterdir())) in (1, 2)


def test_who_has_acted_on_what_was_put_back_acts_again(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run(relay_host()).ok
    assert not agent.run(relay_host(setting="broken")).ok
    assert (agent.stage.root / "srv/copy").read_text() == "SETTING=broken\n"
    assert agent.run(relay_host()).changed == ["command:copy"]
    assert (agent.stage.root / "srv/copy").read_text() == "SETTING=one\n"
