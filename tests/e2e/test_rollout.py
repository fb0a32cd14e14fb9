"""A rollout of two kinds of hosts: a good one, a canary that fails, a controller that is killed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.desk import Desk, Ran
from tests.e2e.steps import settled
from tests.e2e.underway import Underway

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

ONLY = ["hk1", "sg1", "hs1", "acme"]
HOSTS = ("hk1", "sg1")
QUICK = ("--soak", "0")
UNIT = "/etc/systemd/system/derpfleet-relay.service"
ADMITS_EVERYBODY = {
    "verify_client_url": "http://127.0.0.1:9/verify",
    "verify_insecure": True,
    "verify_fail_open": True,
}


def in_force(desk: Desk) -> dict[str, int]:
    """Return the number of the generation that is in force on each host."""
    ran = desk.invoke("history")
    assert ran.code == 0, ran.why()
    assert ran.of("unconfirmed") == []
    return {event["host"]: event["number"] for event in ran.of("generation") if event["in_force"]}


def unit(desk: Desk, host: str) -> str:
    return desk.stage.run_in(host, ["cat", UNIT]).stdout


def started(desk: Desk, host: str) -> str:
    """Return when the host's relay was started."""
    show = ["systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "derpfleet-relay.service"]
    return desk.stage.run_in(host, show).stdout


def states(ran: Ran, host: str) -> list[str]:
    return [event["state"] for event in ran.of("host_state", host)]


def ended(ran: Ran) -> dict[str, Any]:
    [event] = ran.of("rollout_ended")
    return event


def edit_all(desk: Desk, relay: dict[str, Any] | None) -> None:
    for host in HOSTS:
        desk.edit(host, relay=relay)


def test_a_good_rollout_confirms_its_canary_before_the_rest(desk: Desk) -> None:
    for host in HOSTS:
        settled(desk, host)
    edit_all(desk, {"connections_per_address": 512})

    dry = desk.invoke("rollout", "--dry-run", "--canary", "sg1")
    assert dry.code == 10, dry.why()
    assert dry.of("rollout")[0]["waves"] == [["sg1"], ["hk1"]]
    assert in_force(desk) == {"hk1": 1, "sg1": 1}

    ran = desk.invoke("rollout", "--canary", "sg1", "--soak", "6", timeout_s=600)

    assert ran.code == 0, ran.why()
    assert states(ran, "sg1")[-2:] == ["cutting", "confirmed"]
    order = [(event["host"], event["state"]) for event in ran.of("host_state")]
    assert order.index(("sg1", "confirmed")) < order.index(("hk1", "cutting"))
    assert ended(ran)["confirmed"] == ["hk1", "sg1"]
    assert in_force(desk) == {"hk1": 2, "sg1": 2}


def test_hosts_with_nothing_to_do_are_left_alone(desk: Desk) -> None:
    before = {host: started(desk, host) for host in HOSTS}
    ran = desk.invoke("rollout", *QUICK)
    assert ran.code == 0, ran.why()
    assert (ended(ran)["left_alone"], ran.of("armed")) == (["hk1", "sg1"], [])
    assert {host: started(desk, host) for host in HOSTS} == before


def test_a_canary_that_fails_is_taken_back_and_no_other_host_is_touched(desk: Desk) -> None:
    before, since = unit(desk, "sg1"), started(desk, "hk1")
    edit_all(desk, {"connections_per_address": 512, **ADMITS_EVERYBODY})

    ran = desk.invoke("rollout", "--canary", "sg1", *QUICK, timeout_s=600)

    assert ran.code == 7, ran.why()
    assert states(ran, "sg1")[-2:] == ["cutting", "undone"]
    assert states(ran, "hk1") == ["waiting"]
    assert ran.proof("sg1")["ok"]
    assert (unit(desk, "sg1"), started(desk, "hk1")) == (before, since)

    again = desk.invoke("rollout", "--canary", "sg1", *QUICK, timeout_s=600)
    assert again.code == 1, again.why()
    assert "--again" in again.failure()["next"]
    assert started(desk, "hk1") == since


def test_killed_while_a_host_is_armed_it_is_resumed_from_the_ledger(desk: Desk) -> None:
    edit_all(desk, {"connections_per_address": 256})
    with Underway(desk.stage, "rollout", "--canary", "sg1", *QUICK) as rollout:
        rollout.until(lambda event: event["event"] == "armed", timeout_s=300)
    # Leaving the block has killed it.
    ran = desk.invoke("rollout", "--resume", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ended(ran)["confirmed"] == ["hk1", "sg1"]
    assert "256" in unit(desk, "sg1") and "256" in unit(desk, "hk1")
    assert desk.invoke("rollout", "--resume").code == 1
    assert in_force(desk)["hk1"] >= 3


def test_of_two_operators_the_second_is_told_of_the_first(desk: Desk) -> None:
    edit_all(desk, None)
    with Underway(desk.stage, "rollout", "--canary", "sg1", "--soak", "30") as first:
        first.until(lambda event: event["event"] == "host_state", timeout_s=120)
        second = desk.invoke("rollout")
        assert second.code == 5, second.why()
        assert "under way" in second.failure()["why"]
    ran = desk.invoke("rollout", "--abort", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert desk.invoke("rollout", *QUICK, timeout_s=600).code == 0
