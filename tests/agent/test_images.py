"""Images of Docker go once no kept generation has them; those of others stay."""

from __future__ import annotations

import pytest

from engine.resource import Container, Image, Resource
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import back, deploy
from tests.roles.test_uninstall import FAKES

FILES = {"/var/fake/bin/docker": FAKES["docker"]}
THEIRS = "shop:1"


def relay(number: int) -> list[Resource]:
    ref = f"derpfleet/derper:{number}"
    return [Image(ref=ref, archive=ref.encode()), Container(container="derper", image=ref, timeout_s=1)]


def images(agent: Agent) -> set[str]:
    folder = agent.stage.root / "var/fake/docker/images"
    return {path.name.replace("%", "/") for path in folder.iterdir()}


@pytest.fixture
def agent(on_stage: OnStage) -> Agent:
    agent = on_stage(files=FILES)
    agent.stage.run("env", "PATH=/var/fake/bin:/usr/bin:/bin", "docker", "pull", "--quiet", THEIRS)
    return agent


def test_ten_generations_keep_ten_images(agent: Agent) -> None:
    for number in range(14):
        assert deploy(agent, relay(number)).ok
        if number == 3:  # one that was there before us is not ours to remove
            assert images(agent) == {THEIRS, *(f"derpfleet/derper:{one}" for one in range(4))}
    assert images(agent) == {THEIRS, *(f"derpfleet/derper:{one}" for one in range(4, 14))}


def test_the_image_of_a_plan_that_was_taken_back_goes(agent: Agent) -> None:
    deploy(agent, relay(1))
    assert deploy(agent, relay(2), back).generation == 1
    deploy(agent, relay(3))  # until now the container before the present one had it
    assert images(agent) == {THEIRS, "derpfleet/derper:1", "derpfleet/derper:3"}


def test_an_image_that_a_container_of_others_uses_stays(agent: Agent) -> None:
    deploy(agent, relay(0))
    run = ("docker", "run", "--detach", "--name", "shop", "--label", "a=b", "derpfleet/derper:0")
    agent.stage.run("env", "PATH=/var/fake/bin:/usr/bin:/bin", *run)
    for number in range(1, 12):
        deploy(agent, relay(number))
    assert "derpfleet/derper:0" in images(agent)
    assert "derpfleet/derper:1" not in images(agent)
