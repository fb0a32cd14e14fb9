"""A container is replaced: the former one stays until the new one is healthy."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.health import Exec
from engine.resource import Container
from tests.agent.driver import Agent, OnStage, failure

# docker as the agent sees it: a container is a folder of files, and an image decides by its name.
DOCKER = """\
#!/bin/sh
cd /var/fake/containers || exit 1
[ "$1" = container ] && shift
verb=$1
shift
for last; do :; done
case $verb in
  inspect)
    [ -d "$last" ] || exit 1
    case $2 in
      *Status*) cat "$last/state" ;;
      *) grep -q running "$last/state" && printf true || printf false
         echo " $(cat "$last/label")" ;;
    esac ;;
  ls) ls | grep -E "^derper(-former|-new)?$" ;;
  stop) echo exited >"$last/state" ;;
  start) echo running >"$last/state" ;;
  rm) rm -r "$last" ;;
  rename) [ ! -e "$2" ] && mv "$1" "$2" ;;
  update) echo "$2" >"$last/policy" ;;
  logs) echo "the log of $last" ;;
  run)
    [ ! -e "$3" ] || exit 125
    mkdir "$3"
    echo created >"$3/state"
    echo "$last" >"$3/image"
    echo "${5#*=}" >"$3/label"
    echo "$7" >"$3/policy"
    # As the ports are taken, no two run at once.
    grep -l running */state && exit 125
    case $last in *no-program*) exit 127 ;; *crashes*) echo exited ;; *) echo running ;; esac >"$3/state" ;;
esac
"""
HEALTHY = Exec(argv=("sh", "-c", "grep -L sick $(dirname $(grep -l running */state))/image | grep -q ."))
FILES = {"/var/fake/bin/docker": DOCKER, "/var/fake/containers/.keep": ""}
BAD = ("no-program", "crashes", "sick")


def derper(image: str, *, running: bool = True) -> Container:
    healthy = Exec(argv=("sh", "-c", f"cd /var/fake/containers && {HEALTHY.argv[2]}"))
    words = ("--restart", "always")
    return Container(
        container="derper", image=image, arguments=words, running=running, healthy=(healthy,), timeout_s=1
    )


def there(agent: Agent) -> dict[str, tuple[str, ...]]:
    """Return image, state and restart policy of each container by its name."""
    folder = agent.stage.root / "var/fake/containers"
    return {
        path.name: tuple((path / file).read_text().strip() for file in ("image", "state", "policy"))
        for path in sorted(folder.iterdir())
        if path.is_dir()
    }


@pytest.fixture
def agent(on_stage: OnStage) -> Agent:
    agent = on_stage(files=FILES)
    assert agent.run([derper("one")]).ok
    assert there(agent) == {"derper": ("one", "running", "always")}
    return agent


def test_the_former_one_stays_stopped_beside_the_new_one(agent: Agent) -> None:
    for image, former in (("two", "one"), ("three", "two")):
        assert agent.run([derper(image)]).changed == ["container:derper"]
        assert there(agent) == {
            "derper": (image, "running", "always"),
            "derper-former": (former, "exited", "no"),
        }
        assert agent.run([derper(image)]).changed == []


@pytest.mark.parametrize("image", BAD)
def test_a_bad_image_brings_the_former_one_back(agent: Agent, image: str) -> None:
    for _ in range(2):
        what, why = failure(agent.run([derper(image)]))[1:]
        assert what
        assert "put back: the former container" in why
        assert there(agent) == {"derper": ("one", "running", "always")}
    assert agent.run([derper("two")]).ok
    assert there(agent)["derper"][0] == "two"


@pytest.mark.parametrize("image", BAD)
def test_without_a_former_one_nothing_is_left(on_stage: OnStage, image: str) -> None:
    agent = on_stage(files=FILES)
    assert "put back" not in failure(agent.run([derper(image)]))[2]
    assert there(agent) == {}


def test_all_of_it_is_removed(agent: Agent) -> None:
    agent.run([derper("two")])
    assert agent.run([derper("", running=False)]).changed == ["container:derper"]
    assert there(agent) == {}
    assert agent.run([derper("", running=False)]).changed == []


KILLED = """
import os
from agent import docker
run, left = docker.run, [%d]
def run_and_die(argv, *more):
    said = run(argv, *more)
    if argv[1] != "container":
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), 9)
    return said
docker.run = run_and_die
docker.must = lambda argv, *more: run_and_die(argv, *more)[1]
"""


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("image", ["two", "sick"])
def test_killed_at_any_step_the_former_one_is_not_lost(agent: Agent, step: int, image: str) -> None:
    died = agent.dies([derper("two")], KILLED % step)
    assert died or step > 7
    outcome = agent.run([derper(image)])
    if image == "sick":
        assert not outcome.ok
        assert there(agent)["derper"][0] == ("two" if step > 6 else "one")
    assert there(agent)["derper"][1:] == ("running", "always")
    assert "derper-new" not in there(agent)


def test_the_words_of_a_failure_are_the_new_ones(agent: Agent) -> None:
    assert "the log of derper-new" in failure(agent.run([derper("crashes")]))[2]
    assert Path(agent.stage.root / "var/fake/containers/derper").is_dir()
