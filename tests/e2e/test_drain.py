"""A relay is drained for work on its host and brought back, with real nodes at home there."""

from __future__ import annotations

import time

import pytest

from lab import faults
from lab.client import LabClient
from tests.e2e.desk import Desk
from tests.e2e.steps import exchange, have_both_regions, settled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]


def states(desk: Desk) -> dict[str, str]:
    """Return what `invoke status` says of each host. It calls none of them broken."""
    ran = desk.invoke("status")
    assert ran.code == 0, ran.why()
    return {row["host"]: row["proof"] for row in ran.of("status")}


def test_a_relay_is_drained_and_comes_back(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    settled(desk, "sg1")
    have_both_regions(nodes)
    ran = desk.invoke("drain", "--host", "hk1")
    assert ran.code == 0, ran.why()
    [figures] = ran.of("drained")
    assert figures["clients"] >= 2 and figures["homes"] == 2 and figures["seconds"] < 20
    assert "901" in desk.stage.headscale.regions()
    assert {"tcp/443", "udp/3478"} & desk.listening("hk1") <= {"tcp/443"}  # nginx has it
    exchange(nodes, "sg")
    assert states(desk) == {"hk1": "drained", "sg1": "proved"}

    again = desk.invoke("drain", "--host", "hk1")
    assert (again.code, again.changed("hk1")) == (0, [])
    left = desk.invoke("deploy")
    assert (left.code, len(left.of("drained"))) == (0, 1), left.why()
    last = desk.invoke("drain", "--host", "sg1")
    assert last.code == 1 and "only relay" in last.failure()["what"]


def test_one_that_is_not_proved_is_stopped_again(desk: Desk) -> None:
    with faults.blocked(desk.stage, "hk1", 443):
        ran = desk.invoke("drain", "--host", "hk1", "--back")
    assert ran.code == 1, ran.why()
    assert not ran.proof("hk1")["ok"]
    assert "udp/3478" not in desk.listening("hk1")
    assert states(desk)["hk1"] == "drained"


def test_it_comes_back_after_a_reboot_as_it_was(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    """Nothing is sent to the host, and it is registered by no transaction."""
    host = desk.stage.hosts["hk1"]
    host.stop()
    host.boot()
    # Its old hardware address may be remembered for a while.
    answers = "until ssh-keyscan -T 2 hk1.derp.lab 2>/dev/null | grep -q ssh-; do sleep 0.5; done"
    desk.stage.run_in("controller", ["sh", "-c", answers], timeout_s=90)
    asked = "until curl --silent --max-time 2 http://hs1.derp.lab:8080/health; do sleep 0.5; done"
    desk.stage.run_in("hk1", ["sh", "-c", asked], timeout_s=90)
    assert "udp/3478" not in desk.listening("hk1")
    began = time.monotonic()
    ran = desk.invoke("drain", "--host", "hk1", "--back")
    assert ran.code == 0, ran.why()
    assert time.monotonic() - began < 60
    assert ran.proof("hk1")["packets_passed"] and ran.of("in_service")
    assert ran.of("want") == [] and ran.changed("headscale") == []
    assert states(desk) == {"hk1": "proved", "sg1": "proved"}
    for node in nodes:
        node.move_home(901)
    exchange(nodes, "hk")
    refused = desk.invoke("drain", "--host", "hk1", "--back")
    assert refused.code == 1 and "it is not drained" in refused.failure()["what"]
    assert desk.invoke("deploy", "--host", "hk1").changed("hk1") == []
