"""Rollback after deploy is the identity, for random pairs of plans, also on foreign files."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.resource import Absent, Directory, File, NftTable, Resource, Service, Symlink, Sysctl
from tests.agent.conftest import NEWEST
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import deploy, history, roll_back, state
from tests.agent.plans import RULES, relay_host

UNIT = File(path="/etc/systemd/system/more.service", content=b"[Service]\nExecStart=/bin/true\n")
# Each may be in one plan and not in the other.
MORE: dict[str, list[Resource]] = {
    "theirs": [File(path="/etc/relay/theirs", content=b"ours\n", mode="0640")],
    "no theirs": [Absent(path="/etc/relay/theirs")],
    "linked": [Symlink(path="/srv/link", target="relay")],
    "folder": [Directory(path="/srv/more", mode="0700"), File(path="/srv/more/x", content=b"x\n")],
    "service": [UNIT, Service(unit="more.service", restart_on=(UNIT.id,), timeout_s=1)],
    "setting": [Sysctl(key="net.ipv4.tcp_keepalive_time", value="7201")],
    "rules": [NftTable(table="more", path="/srv/more.nft", rules=RULES.replace(b"relay", b"more"))],
}
PLANS = st.fixed_dictionaries(
    {
        "setting": st.sampled_from(["one", "two"]),
        "fin_timeout_s": st.sampled_from([31, 32]),
        "more": st.sets(st.sampled_from(sorted(MORE))).filter(lambda one: not {"theirs", "no theirs"} <= one),
    }
)


def plan(drawn: dict[str, Any]) -> list[Resource]:
    base = relay_host(setting=drawn["setting"], fin_timeout_s=drawn["fin_timeout_s"])
    return [*base, *(resource for name in sorted(drawn["more"]) for resource in MORE[name])]


def whole(agent: Agent) -> dict[str, str]:
    return state(agent) | {"keepalive": agent.stage.run("sysctl", "net.ipv4.tcp_keepalive_time").stdout}


def test_rollback_after_deploy_is_the_identity(on_stage: OnStage) -> None:
    agent = on_stage(NEWEST)
    (agent.stage.root / "etc/relay").mkdir(mode=0o750)
    (agent.stage.root / "etc/relay/theirs").write_text("theirs\n")
    (agent.stage.root / "srv/link").symlink_to("theirs")

    @settings(
        max_examples=12, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(PLANS, PLANS)
    def walk(one: dict[str, Any], other: dict[str, Any]) -> None:
        assert deploy(agent, plan(one)).ok
        number, before = history(agent).newest, whole(agent)
        assert deploy(agent, plan(other)).ok
        if history(agent).newest > number:
            assert roll_back(agent, number).ok
        assert whole(agent) == before, (one, other)

    walk()
