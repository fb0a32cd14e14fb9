"""A deploy is changed and rolled back, and another takes itself back; each state is proved."""

from __future__ import annotations

import pytest

from lab import faults
from tests.e2e.desk import Desk, Ran
from tests.e2e.steps import UNIT, in_force, settled, unit

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1200)]

ONLY = ["hk1", "hs1", "acme"]
ADMITS_EVERYBODY = {
    "verify_client_url": "http://127.0.0.1:9/verify", "verify_insecure": True, "verify_fail_open": True,
}


def sent(ran: Ran) -> int:
    """Return how many contents the host wanted to be sent."""
    return sum(len(event["blobs"]) for event in ran.of("want", "hk1"))


def test_a_changed_deploy_is_rolled_back_and_proved(desk: Desk) -> None:
    settled(desk)
    first = unit(desk)
    assert in_force(desk) == 1
    desk.edit("hk1", relay={"connections_per_address": 512})
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert (ran.of("kept")[-1]["generation"], in_force(desk)) == (2, 2)
    second = unit(desk)
    assert second != first

    dry = desk.invoke("rollback", "--host", "hk1", "--dry-run")
    assert dry.code == 10, dry.why()
    assert f"file:{UNIT}" in dry.changed("hk1")
    assert unit(desk) == second

    back = desk.invoke("rollback", "--host", "hk1")
    assert back.code == 0, back.why()
    assert back.proof("hk1")["packets_passed"]
    assert sent(back) == 0
    assert (unit(desk), in_force(desk)) == (first, 3)
    desk.edit("hk1", relay=None)
    assert desk.invoke("deploy", "--host", "hk1").changed("hk1") == []


def test_a_relay_that_could_ask_nobody_is_not_restarted(desk: Desk) -> None:
    """Its clients would come back at once, and all would be refused."""
    before, number = unit(desk), in_force(desk)
    desk.edit("hk1", relay={"verify_client_url": "http://127.0.0.1:9/verify", "verify_insecure": True})

    ran = desk.invoke("deploy", "--host", "hk1")

    assert ran.code == 6, ran.why()
    assert "restarting it now would shut its nodes out" in ran.failure()["what"]
    assert ran.of("result", "hk1") == []
    assert (unit(desk), in_force(desk)) == (before, number)


def test_a_relay_that_is_healthy_and_admits_everybody_is_taken_back(desk: Desk) -> None:
    """Its own health check holds. Only the proof sees that a stranger gets in."""
    before, number = unit(desk), in_force(desk)
    desk.edit("hk1", relay=ADMITS_EVERYBODY)

    ran = desk.invoke("deploy", "--host", "hk1")

    assert ran.code == 7, ran.why()
    [armed] = ran.of("armed", "hk1")
    assert armed["generation"] == number
    assert [event["verdict"] for event in ran.of("verdict", "hk1")] == ["failed"]
    assert [event["generation"] for event in ran.of("back", "hk1")] == [number]
    assert [proof["packets_passed"] for proof in ran.of("proof", "hk1")][-1]
    assert ran.proof("hk1")["ok"]
    assert (unit(desk), in_force(desk)) == (before, number)


def test_with_keep_it_is_left_to_be_looked_at_and_a_rollback_ends_that(desk: Desk) -> None:
    before, number = unit(desk), in_force(desk)
    ran = desk.invoke("deploy", "--host", "hk1", "--keep")
    assert ran.code == 1, ran.why()
    assert unit(desk) != before
    assert desk.invoke("history", "--host", "hk1").of("unconfirmed")
    desk.edit("hk1", relay=None)
    back = desk.invoke("rollback", "--host", "hk1")
    assert back.code == 0, back.why()
    assert (unit(desk), in_force(desk)) == (before, number)


def test_a_host_that_was_broken_before_takes_a_change_that_breaks_no_more(desk: Desk) -> None:
    """Else no change would reach a host whose fault is elsewhere."""
    number = in_force(desk)
    desk.edit("hk1", relay={"connections_per_address": 513})
    with faults.blocked(desk.stage, "hk1", 3478, "udp"):
        ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 1, ran.why()
    [verdict] = ran.of("verdict", "hk1")
    assert (verdict["verdict"], verdict["broken"][0]) == ("still broken", "stun4")
    assert [event["generation"] for event in ran.of("kept", "hk1")] == [number + 1]
    assert ran.of("result", "headscale") == []
    again = desk.invoke("deploy", "--host", "hk1")
    assert (again.code, again.changed("hk1")) == (0, []), again.why()
