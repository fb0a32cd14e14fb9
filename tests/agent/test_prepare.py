"""Preparing a host: what nothing uses yet is there afterwards, and all else is as before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from engine.resource import Command, Directory, File, Package, Resource, Symlink, Tree
from engine.run import Job, Outcome, Verb
from tests.agent.driver import DIE_AT_STEP, Agent, OnStage
from tests.agent.generations import deploy, history, roll_back, state
from tests.agent.plans import relay_host

NEXT = "/srv/next"


def upgraded() -> list[Resource]:
    """Return the plan of another release, with another setting and one more package."""
    former = next(one for one in relay_host() if isinstance(one, Tree))
    resources = [one for one in relay_host(setting="two") if not isinstance(one, Symlink)]
    tree = replace(former, path=NEXT)
    return [*resources, Package(package="socat"), tree, Symlink(path="/srv/current", target="next")]


def prepare(agent: Agent, resources: Iterable[Resource], **more: Any) -> Outcome:
    job = Job(verb=Verb.PREPARE, plan=lambda _: resources, about=lambda _: {"release": "r2"})
    return agent.run_job(job, **more)


def used(agent: Agent) -> dict[str, str]:
    """Return the state, without the new release and the fakes' records."""
    return {path: how for path, how in state(agent).items() if not path.startswith(("srv/next", "var/fake"))}


def wants(events: list[dict[str, Any]]) -> list[str]:
    return [blob for event in events if event["event"] == "want" for blob in event["blobs"]]


def test_what_nothing_uses_yet_is_there_and_all_else_is_as_before(on_stage: OnStage, python: str) -> None:
    agent = on_stage(python)
    deploy(agent, relay_host())
    before = used(agent)
    agent.forget()

    outcome = prepare(agent, upgraded())

    assert outcome.ok
    assert outcome.changed == ["package:socat", f"tree:{NEXT}"]
    assert {"symlink:/srv/current", "file:/etc/relay/relay.env", "service:relay.service"} <= {*outcome.left}
    assert (outcome.counts["changed"], outcome.counts["skipped"]) == (2, len(outcome.left))
    assert (agent.stage.root / "srv/next/relay/server.py").exists()
    assert used(agent) == before
    assert not any("restart" in call or "reload" in call for call in agent.log())


def compiled(release: str) -> Command:
    """Return the command that compiles a release."""
    made = f"{release}/relay/__pycache__"
    return Command(
        title=f"compiled {release}",
        argv=("mkdir", "-p", made),
        creates=made,
        on_change=(f"tree:{release}",),
    )


def test_a_release_is_compiled_ahead_and_not_at_the_cut_over(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    elsewhere = Command(title="elsewhere", argv=("touch", "/srv/made"), creates="/srv/made")
    resources = [*upgraded(), compiled(NEXT), elsewhere]

    outcome = prepare(agent, resources)

    assert f"command:compiled {NEXT}" in outcome.changed
    assert "command:elsewhere" in outcome.left
    assert f"command:compiled {NEXT}" not in deploy(agent, resources).changed


def test_a_release_that_is_in_use_is_not_compiled_ahead(on_stage: OnStage) -> None:
    """Only the cut-over replaces a tree that is there, so its modules are compiled then."""
    agent = on_stage()
    tree = next(one for one in relay_host() if isinstance(one, Tree))
    deploy(agent, relay_host())
    (agent.stage.root / tree.path.lstrip("/") / "relay/server.py").write_text("damaged")

    outcome = prepare(agent, [*relay_host(), compiled(tree.path)])

    assert {tree.id, f"command:compiled {tree.path}"} <= {*outcome.left}


def test_its_cut_over_is_sent_nothing_but_secrets_and_goes_back_whole(on_stage: OnStage) -> None:
    agent, events = on_stage(), list[dict[str, Any]]()
    deploy(agent, relay_host())
    before = used(agent)
    prepare(agent, upgraded())
    outcome = deploy(agent, upgraded(), on_event=events.append)
    assert (outcome.generation, wants(events)) == (2, [])
    assert f"tree:{NEXT}" not in outcome.changed
    roll_back(agent, 1)
    assert used(agent) == before
    assert (agent.stage.root / "srv/next").exists()  # generation 2 is kept, and its release with it


def test_a_host_that_is_prepared_and_no_more_says_so_and_can_go_back(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    before = state(agent)
    prepare(agent, [one for one in upgraded() if one.id != "package:socat"])
    assert history(agent).unconfirmed.verb == "prepare"
    roll_back(agent, 1)
    assert (state(agent), history(agent).unconfirmed.plan) == (before, "")


def test_with_nothing_to_do_it_leaves_no_trace(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    stamps = agent.stamps()
    outcome = prepare(agent, relay_host())
    assert (outcome.changed, outcome.left) == ([], [])
    assert (agent.stamps(), history(agent).unconfirmed.plan) == (stamps, "")


def test_a_bare_host_waits_with_what_needs_more_than_is_there(on_stage: OnStage) -> None:
    """Its release belongs to a user whom only the cut-over makes."""
    agent = on_stage()
    folder = Directory(path="/srv/releases")
    tree = replace(next(one for one in relay_host() if isinstance(one, Tree)), path="/srv/releases/r1")
    source = File(path="/etc/relay.list", content=b"deb\n")
    wanted = [
        folder, replace(tree, needs=(folder.id,)), source,
        Package(package="socat"), Package(package="docker-ce", needs=(source.id,)),
    ]  # fmt: skip
    outcome = prepare(agent, wanted)
    assert outcome.changed == ["package:socat"]
    assert outcome.left == [folder.id, "tree:/srv/releases/r1", source.id, "package:docker-ce"]
    assert not any("docker-ce" in call for call in agent.log())
    assert deploy(agent, wanted).ok


@pytest.mark.parametrize("step", range(1, 60, 7))
def test_killed_at_any_step_the_next_run_goes_on(on_stage: OnStage, step: int) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    before = used(agent)
    job = Job(verb=Verb.PREPARE, plan=lambda _: upgraded(), about=lambda _: {})
    agent.extra = DIE_AT_STEP % step
    try:
        agent.run_job(job)
    except Exception:
        assert used(agent) == before
    agent.extra = ""
    assert prepare(agent, upgraded()).ok
    assert used(agent) == before
    assert deploy(agent, upgraded()).generation == 2
