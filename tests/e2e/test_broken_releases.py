"""Releases that their hosts find healthy, and that fail from outside, take themselves back.

Both programs serve TLS themselves, so that every defect is the release's own. Each test goes on
from the state in which the one before it ended: run the whole file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab.client import LabClient
from lab.process import wait_for
from tests.e2e.broken import DERPERS, OURS, checkout_of_derper, checkout_of_ours
from tests.e2e.desk import Desk
from tests.e2e.steps import exchange, in_force

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

ONLY = ["hk1", "hs1", "acme", "site-a", "site-b"]
PROGRAMS: dict[str, Callable[[Path, str], Path]] = {"python": checkout_of_ours, "derper": checkout_of_derper}


def clients(desk: Desk) -> int | None:
    [row] = desk.invoke("status", "--host", "hk1").of("status")
    found: int | None = row["clients"]
    return found


@pytest.fixture(scope="module", params=PROGRAMS)
def program(request: pytest.FixtureRequest, desk: Desk) -> str:
    """The program that hk1 runs, proved."""
    name = str(request.param)
    desk.edit("hk1", relay={"program": name, "under": "systemd"}, front="none")
    ran = desk.invoke("deploy", "--host", "hk1", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ran.proof("hk1")["packets_passed"]
    return name


@pytest.fixture(scope="module")
def nodes(desk: Desk, program: str) -> tuple[LabClient, LabClient]:
    """Two nodes that can meet only through hk1."""
    found = desk.stage.clients["site-a"], desk.stage.clients["site-b"]
    for node in found:
        node.join()
    return found


def test_it_serves_two_nodes(desk: Desk, program: str, nodes: tuple[LabClient, LabClient]) -> None:
    exchange(nodes, "hk")


@pytest.mark.parametrize("rung", OURS)
def test_a_release_that_fails_outside_is_taken_back_and_clients_return(
    desk: Desk, program: str, nodes: tuple[LabClient, LabClient], tmp_path: Path, rung: str
) -> None:
    assert OURS.keys() == DERPERS.keys()
    wait_for(lambda: clients(desk) == len(nodes), timeout_s=60, what="the nodes are not at hk1")
    number = in_force(desk)
    broken = replace(desk, checkout=PROGRAMS[program](tmp_path, rung))

    ran = broken.invoke("deploy", "--host", "hk1")

    assert ran.code == 7, ran.why()
    assert [event["generation"] for event in ran.of("armed", "hk1")] == [number]
    [verdict] = ran.of("verdict", "hk1")
    assert (verdict["verdict"], verdict["tries"]) == ("failed", 3)
    assert rung in verdict["broken"]
    assert [event["generation"] for event in ran.of("back", "hk1")] == [number]
    assert ran.proof("hk1")["packets_passed"]
    assert in_force(desk) == number
    first, last = ran.of("clients", "hk1")
    assert (first["cut"], first["way_back"], last["way_back"]) == (len(nodes), False, True)
    assert (last["cut"], last["back"]) == (len(nodes), len(nodes))


def test_the_nodes_still_meet(desk: Desk, program: str, nodes: tuple[LabClient, LabClient]) -> None:
    exchange(nodes, "hk")
    again = desk.invoke("deploy", "--host", "hk1")
    assert (again.code, again.changed("hk1")) == (0, []), again.why()
