"""Rollback after deploy is the identity, for random pairs of plans, also on foreign files.

So is the way back that an armed plan takes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.resource import Absent, Directory, File, Resource, Service, Symlink, Sysctl
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import back, deploy, history, roll_back, state
from tests.agent.plans import another_service, another_table, relay_host

UNIT, SERVICE = another_service()
THEIRS, LINK, FOLDER = "/etc/relay/theirs", "/srv/link", "/srv/more"
# Each thing, in the ways in which plans may have it. Without the first one they leave it alone.
NOTHING: list[Resource] = []
THINGS: Mapping[str, list[list[Resource]]] = {
    "base": [
        relay_host(),
        relay_host(setting="two"),
        relay_host(fin_timeout_s=32),
        relay_host(setting="two", fin_timeout_s=32),
    ],
    "theirs": [
        NOTHING,
        [File(path=THEIRS, content=b"ours\n", mode="0640")],
        [File(path=THEIRS, content=b"ours, too\n", group="relay")],
        [Absent(path=THEIRS)],
    ],
    "link": [
        NOTHING,
        [Symlink(path=LINK, target="relay")],
        [Symlink(path=LINK, target="elsewhere")],
        [File(path=LINK, content=b"no link\n")],
    ],
    "folder": [
        NOTHING,
        [Directory(path=FOLDER, mode="0700"), File(path=f"{FOLDER}/x", content=b"x\n")],
        [Directory(path=FOLDER)],
    ],
    "service": [
        NOTHING,
        [UNIT, SERVICE],
        [UNIT, Service(unit="more.service", enabled=False, timeout_s=1)],
        [UNIT, Service(unit="more.service", enabled=False, running=False)],
    ],
    "setting": [NOTHING, *([Sysctl(key="net.ipv4.tcp_keepalive_time", value=n)] for n in ("7201", "7202"))],
    # As roles do: each plan has our table, or has it removed.
    "rules": [another_table(present=False), another_table(), another_table("drop")],
}
PLANS = st.fixed_dictionaries(
    {thing: st.integers(0, len(ways) - 1) for thing, ways in THINGS.items()}  # which way of each
)


def plan(drawn: Mapping[str, int]) -> list[Resource]:
    return [resource for thing, way in drawn.items() for resource in THINGS[thing][way]]


def whole(agent: Agent) -> dict[str, str]:
    return state(agent) | {"keepalive": agent.stage.run("sysctl", "net.ipv4.tcp_keepalive_time").stdout}


@pytest.mark.timeout(600)
def test_rollback_after_deploy_is_the_identity(on_stage: OnStage) -> None:
    agent = on_stage()
    (agent.stage.root / "etc/relay").mkdir(mode=0o750)
    (agent.stage.root / THEIRS[1:]).write_text("theirs\n")
    (agent.stage.root / LINK[1:]).symlink_to("theirs")

    @settings(
        max_examples=10, deadline=None, derandomize=True, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(PLANS, PLANS)
    def walk(one: Mapping[str, int], other: Mapping[str, int]) -> None:
        assert deploy(agent, plan(one)).ok
        number, before = history(agent).newest, whole(agent)
        deploy(agent, plan(other), back)
        assert whole(agent) == before, (one, other)
        assert deploy(agent, plan(other)).ok
        if history(agent).newest > number:
            assert roll_back(agent, number).ok
        assert whole(agent) == before, (one, other)

    walk()
