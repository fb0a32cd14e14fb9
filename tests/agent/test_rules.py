"""The firewall: rules that lock the controller out are taken back; others' tables stay."""

from __future__ import annotations

import time
from dataclasses import replace
from subprocess import CompletedProcess

import pytest

from engine.resource import NftTable
from tests.agent.driver import Agent, OnStage, failure
from tests.agent.generations import HungUp, await_free, hang_up_at
from tests.agent.plans import RULES

DIE_AT_CONFIRM = """
import os
from agent import wire
send = wire.Wire.send
def send_or_die(self, event, **fields):
    if event == "confirm":
        os.kill(os.getpid(), 9)
    send(self, event, **fields)
wire.Wire.send = send_or_die
"""


def waits_for_no_confirmation(agent: Agent) -> bool:
    """Whether nothing of the rules of before is left. It would keep our folder there."""
    return not list(agent.stage.root.glob("run/derpfleet/*-relay*"))


def test_rules_that_lock_us_out_are_taken_back(on_stage: OnStage) -> None:
    agent = on_stage()
    old = NftTable(table="relay", path="/etc/relay.nft", rules=RULES)
    assert agent.run([old]).ok
    before = agent.stage.run("nft", "list", "ruleset").stdout

    agent.way_in = False
    what = failure(agent.run([replace(old, rules=RULES.replace(b"accept", b"drop"), revert_after_s=1)]))[1]
    assert what == "the new rules were taken back"
    assert agent.stage.run("nft", "list", "ruleset").stdout == before
    assert waits_for_no_confirmation(agent)
    assert (agent.stage.root / "etc/relay.nft").read_bytes() == RULES
    assert agent.run([old]).counts["ok"] == 1


def test_rules_are_taken_back_at_once_when_nobody_is_there_to_confirm_them(on_stage: OnStage) -> None:
    agent = on_stage()
    old = NftTable(table="relay", path="/etc/relay.nft", rules=RULES, revert_after_s=600)
    assert agent.run([old]).ok
    before = agent.stage.run("nft", "list", "ruleset").stdout

    with pytest.raises(HungUp):
        agent.run([replace(old, rules=RULES.replace(b"accept", b"drop"))], on_event=hang_up_at("confirm"))
    await_free(agent)
    assert agent.stage.run("nft", "list", "ruleset").stdout == before
    assert waits_for_no_confirmation(agent)
    assert agent.run([old]).counts["ok"] == 1


def test_rules_that_a_killed_run_had_armed_do_not_take_back_those_of_the_next(on_stage: OnStage) -> None:
    agent, old = on_stage(), NftTable(table="relay", path="/etc/relay.nft", rules=RULES, revert_after_s=3)
    assert agent.dies([old], DIE_AT_CONFIRM)
    time.sleep(2)
    prove = agent.stage.run

    def prove_late(*argv: str) -> CompletedProcess[str]:
        """While this run waits for its second connection, the time of the one before it is over."""
        if argv[0] == "rm":
            time.sleep(2)
        return prove(*argv)

    agent.stage.run = prove_late  # type: ignore[method-assign]  # instead of its own method
    assert agent.run([replace(old, revert_after_s=30)]).failures == []
    assert waits_for_no_confirmation(agent)
    assert "table inet relay" in prove("nft", "list", "tables").stdout


def test_rules_changed_by_hand_are_found_and_others_tables_left(on_stage: OnStage) -> None:
    agent, wanted = on_stage(), [NftTable(table="relay", path="/etc/relay.nft", rules=RULES)]
    assert agent.stage.run("nft", "add", "table", "inet", "theirs").returncode == 0
    agent.run(wanted)
    assert (
        agent.stage.run("nft", "add", "rule", "inet", "relay", "in", "tcp", "dport", "22", "drop").returncode
        == 0
    )
    assert agent.run(wanted).changed == ["firewall:relay"]
    rules = agent.stage.run("nft", "list", "ruleset").stdout
    assert "dport" not in rules and "table inet theirs" in rules
    assert agent.run(wanted).counts["ok"] == 1


def test_rules_that_can_lock_nobody_out_wait_for_no_second_connection(on_stage: OnStage) -> None:
    agent = on_stage()
    agent.way_in = False
    wanted = NftTable(table="relay", path="/etc/relay.nft", rules=RULES, revert_after_s=0)
    assert agent.run([wanted]).ok
    assert "table inet relay" in agent.stage.run("nft", "list", "tables").stdout
    assert agent.run([wanted]).counts["ok"] == 1
