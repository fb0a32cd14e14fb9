"""Registration on a real headscale host: over SSH, by the agent, under systemd."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

MAP, CONFIG, SERVICE = (
    "file:/etc/headscale/derp.yaml",
    "file:/etc/headscale/config.yaml",
    "service:headscale.service",
)
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with own_lab(tmp_path_factory, "headscale", only=["hs1"]) as own:
        yield own


@pytest.fixture
def register(stage):
    def run(*proved, mode="apply", **more):
        request = json.dumps({"site_file": str(stage.site_file), "mode": mode, "proved": proved, **more})
        argv = [*stage.enter_in("controller"), sys.executable, "-m", "tests.control.registering", request]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def on_hs1(stage, *argv):
    return stage.run_in("hs1", list(argv)).stdout


def served(stage):
    url = "http://127.0.0.1:9090/debug/derp"
    return set(json.loads(on_hs1(stage, "curl", "-fsS", "-H", "Accept: application/json", url))["regions"])


def started(stage):
    return on_hs1(stage, "systemctl", "show", "headscale", "--property=ActiveEnterTimestampMonotonic,MainPID")


def test_the_life_of_two_regions(stage, register):
    before, running = on_hs1(stage, "cat", "/etc/headscale/derp.yaml"), started(stage)
    assert register("hk1", mode="check")["changed"] == [MAP, SERVICE]
    assert on_hs1(stage, "cat", "/etc/headscale/derp.yaml") == before

    assert register("hk1") == {"changed": [MAP, SERVICE], "failed": []}
    assert served(stage) == {"901", "910"}
    assert started(stage) == running  # headscale reads its map every 5 s: it was waited for
    assert on_hs1(stage, "cat", "/etc/headscale/derp.yaml").startswith(before)
    assert register("hk1")["changed"] == []

    assert register("hk1", "sg1")["failed"] == []
    moved = {"sg1": {"https": 3489}}
    assert register("hk1", "sg1", ports=moved)["failed"] == []
    assert started(stage) != running
    assert register("hk1", "sg1", ports=moved)["changed"] == []
    assert served(stage) == {"901", "902", "910"}

    assert register(withdrawn=["hk1", "sg1"])["failed"] == []
    assert served(stage) == {"910"}
    assert on_hs1(stage, "cat", "/etc/headscale/derp.yaml") == before


def test_a_map_that_headscale_does_not_come_back_with_is_put_back(stage, register):
    before = on_hs1(stage, "cat", "/etc/headscale/derp.yaml")
    [[failed, what, why]] = register("hk1", spoil=True)["failed"]
    assert (failed, what) == (SERVICE, f"{SERVICE} did not become healthy within 5 s")
    assert "cannot unmarshal !!str `x` into int" in why
    assert f"put back: {MAP}" in why
    assert on_hs1(stage, "cat", "/etc/headscale/derp.yaml") == before
    assert served(stage) == {"910"}
    assert register(mode="check")["changed"] == []


def test_a_configuration_that_does_not_name_the_map_gets_one_line(stage, register):
    on_hs1(
        stage,
        "sed",
        "-i",
        "s|^    - /etc/headscale/derp.yaml.*|    - /etc/headscale/others.yaml|",
        "/etc/headscale/config.yaml",
    )
    on_hs1(stage, "mv", "/etc/headscale/derp.yaml", "/etc/headscale/others.yaml")
    before = on_hs1(stage, "cat", "/etc/headscale/config.yaml").splitlines()

    assert register("hk1") == {"changed": [MAP, CONFIG, SERVICE], "failed": []}
    after = on_hs1(stage, "cat", "/etc/headscale/config.yaml").splitlines()
    assert [line for line in after if line not in before] == ['    - "/etc/headscale/derp.yaml"']
    assert [line for line in before if line not in after] == []
    assert served(stage) == {"901", "910"}
    owners = on_hs1(
        stage, "stat", "-c", "%a %U %G", "/etc/headscale/config.yaml", "/etc/headscale/derp.yaml"
    ).split("\n")
    assert owners[0] == owners[1]
