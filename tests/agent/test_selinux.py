"""selinux: what is added to the policy, and taken back. The tools are small fakes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.policy import Selinux
from engine.resource import Absent, File, Resource
from tests.agent.driver import Agent

OnStage = Callable[..., Agent]
BOOLEAN, LABEL = "httpd_can_network_relay", "http_port_t"
STATE = "var/lib/derpfleet/selinux.json"
# The policy of refpolicy knows port 81 by another label, and 80 by ours.
POLICY = {"/var/fake/selinux/policy": f"{LABEL} tcp 80\nreserved_port_t tcp 81\n"}


def policy(*ports: int) -> list[Selinux]:
    return [Selinux(booleans=(BOOLEAN,), ports=tuple((LABEL, port) for port in ports))]


def own(agent: Agent) -> str:
    return (agent.stage.root / "var/fake/selinux/own").read_text()


def test_only_what_the_policy_lacks_is_added(on_stage: OnStage) -> None:
    agent = on_stage(files=POLICY)
    assert agent.run(policy(80, 81, 3489)).changed == ["selinux:policy"]
    assert own(agent) == f"{LABEL} tcp 81\n{LABEL} tcp 3489\n"
    agent.forget()
    assert agent.run(policy(80, 81, 3489)).changed == []
    assert agent.log() == []


def test_a_port_that_is_no_longer_wanted_loses_its_label(on_stage: OnStage) -> None:
    agent = on_stage(files=POLICY)
    agent.run(policy(80, 81, 3489))
    assert agent.run(policy(80, 81)).changed == ["selinux:policy"]
    assert own(agent) == f"{LABEL} tcp 81\n"


def test_the_removal_takes_back_our_additions_and_no_others(on_stage: OnStage) -> None:
    theirs = {"/var/fake/selinux/own": f"{LABEL} tcp 8444\n", f"/var/fake/selinux/{BOOLEAN}": "on\n"}
    agent = on_stage(files=POLICY | theirs)
    agent.run(policy(81, 8444))
    assert agent.run([Selinux()]).changed == ["selinux:policy"]
    assert own(agent) == f"{LABEL} tcp 8444\n"
    assert (agent.stage.root / "var/fake/selinux" / BOOLEAN).read_text() == "on\n"
    assert not (agent.stage.root / STATE).exists()
    assert agent.run([Selinux()]).changed == []


def test_a_boolean_that_was_off_is_off_again(on_stage: OnStage) -> None:
    agent = on_stage(files=POLICY)
    agent.run(policy())
    agent.run([Selinux()])
    assert [line for line in agent.log() if "setsebool" in line] == [
        f"setsebool -P {BOOLEAN} on", f"setsebool -P {BOOLEAN} off",
    ]  # fmt: skip


@pytest.mark.parametrize("is_on", [False, True])
def test_a_file_gets_the_policys_label(on_stage: OnStage, is_on: bool) -> None:
    agent = on_stage(files={"/var/fake/selinux/enforce": "1"} if is_on else {})
    agent.extra = "from agent import selinux\nselinux.ENABLED = '/var/fake/selinux/enforce'\n"
    wanted: list[Resource] = [File(path="/srv/program", content=b"#!/bin/sh\n"), Absent(path="/srv/no")]
    assert agent.run(wanted).changed == ["file:/srv/program"]
    assert agent.log() == (["restorecon -R /srv/program"] if is_on else [])


@pytest.mark.parametrize(("listed", "has"), [("81, 80", True), ("100-1023", True), ("80", False)])
def test_ranges_count_as_their_ports(on_stage: OnStage, listed: str, has: bool) -> None:
    agent = on_stage(files={"/var/fake/selinux/policy": f"{LABEL} tcp {listed}\n"})
    port = 81 if "," in listed or not has else 443
    assert agent.run([Selinux(ports=((LABEL, port),))]).changed == ([] if has else ["selinux:policy"])
