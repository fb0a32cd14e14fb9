"""From every combination of program and runner to every other: nothing of the former is left.

Once in the plans, and once with the real agent on the stage of tests/roles/test_uninstall.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise, permutations

import pytest

import roles
from artefacts.shipment import Shipment
from engine.facts import Facts, FileFact
from engine.plan import compile_plan
from engine.resource import Absent, Command, Container, Image, Package, Resource, Service, SupervisorProgram
from inventory.choices import FLAVOURS, combination_of
from inventory.model import Host
from roles import paths
from tests.agent.driver import Agent
from tests.roles.cases import load, shipment
from tests.roles.test_absent import covers, deployed
from tests.roles.test_uninstall import (
    below,
    deploy,
    described,
    different,
    done,
    install,
    new_host,
    ship,
    state,
)

__all__ = ["new_host", "ship"]  # fixtures

CASES = {"bare", "docker", "native", "supervisord"}
PACKAGES = ["nginx", "nftables", "systemd-timesyncd", "docker.io", "apparmor", "supervisor"]
PAIRS = list(permutations(sorted(CASES), 2))


def test_there_is_a_case_for_each_combination() -> None:
    assert {combination_of(load(name)[0]) for name in CASES} == set(FLAVOURS.values())


def planned(name: str, facts: Facts) -> list[Resource]:
    """Return the resources of a case's host, with these facts, in the plan's order."""
    host, site, _ = load(name)
    resources = roles.compile_host(host, site, facts, named(shipment(host), host))
    return list(compile_plan(resources, mode="check").resources)


def named(shipment: Shipment, host: Host) -> Shipment:
    """Return the shipment with a release whose id is its program's own."""
    assert shipment.relay_release is not None
    sha256 = {"python": "a1" * 32, "derper": "c3" * 32}[host.program]
    return replace(shipment, relay_release=replace(shipment.relay_release, sha256=sha256))


def after(name: str) -> tuple[list[Resource], Facts]:
    """Return the plan of a case, and the facts once it is deployed."""
    _, _, facts = load(name)
    resources = planned(name, facts)
    found = deployed(facts, resources)
    trees = {
        path: FileFact(content=None, sha256="", mode="0755", owner="root", group="root")
        for r in resources
        if (path := r.owned_path()).startswith(f"{paths.RELEASES}/")
    }
    return resources, replace(found, files={**found.files, **trees})


def is_there(resource: Resource) -> bool:
    """Whether the resource leaves something on the host that a switch has to remove."""
    meant_to_stay = isinstance(resource, Absent | Package | Image | Command)
    kept = resource.id in ("service:docker.service", "service:supervisor.service")
    running = not isinstance(resource, Service | Container | SupervisorProgram) or resource.running
    return resource.role == "relay" and not meant_to_stay and not kept and running


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_plan_removes_all_that_it_does_not_have(one: str, other: str) -> None:
    before, facts = after(one)
    now = planned(other, facts)
    wanted = {r.id for r in now if is_there(r)}
    left = [r.id for r in before if is_there(r) and r.id not in wanted]
    removed = [r for r in before if r.id in left and any(covers(gone, r) for gone in now)]
    assert left == [r.id for r in removed]
    assert left


def tour(names: list[str]) -> Iterator[str]:
    """Yield names so that each follows each other name once."""
    first = names[0]
    yield first
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            yield from (other, name)
        if place + 1 < len(names):
            yield names[place + 1]


# Where a relay's programs and runners have files.
FOLDERS = ("etc/supervisor", "etc/systemd/system", "opt", "var/lib/derpfleet-relay", "var/log")
KEY = "var/lib/derpfleet-relay/derper.key"  # each host has its own


def looks(agent: Agent) -> tuple[dict[str, str], set[str]]:
    """Return the files of a host, and its units, containers and programs: without Docker itself."""
    root = agent.stage.root
    found = (path for folder in FOLDERS for path in below(root, folder))
    files = {path: described(root, path) for path in found if path != KEY}
    stays = ("docker/images", "units/docker.", "units/supervisor.")
    return files, {name for name in state(agent) if not name.startswith(stays)}


@pytest.mark.timeout(600)
def test_the_agent_leaves_nothing_of_the_former_relay(
    new_host: Callable[[], Agent], ship: Callable[[Host], Shipment]
) -> None:
    def run(agent: Agent, name: str) -> None:
        host, site, _ = load(name)
        done(agent.run_job(deploy(host, site, named(ship(host), host))))

    def prepared() -> Agent:
        agent = new_host()
        install(agent, PACKAGES)
        return agent

    fresh = {}
    for name in sorted(CASES):
        agent = prepared()
        run(agent, name)
        fresh[name] = looks(agent)
    agent, walked = prepared(), list(tour(sorted(CASES)))
    assert {*pairwise(walked)} >= set(PAIRS)
    for former, name in pairwise(["none", *walked]):
        run(agent, name)
        (files, units), (fresh_files, fresh_units) = looks(agent), fresh[name]
        assert different(files, fresh_files) == {}, (former, name)
        assert units == fresh_units, (former, name)
