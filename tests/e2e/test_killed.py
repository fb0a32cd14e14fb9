"""A controller, an agent or a whole host dies during a deploy: the relay is old or new, and proved.

They die where the host differs. Every step of the agent, and a hang-up at every event, are in
tests/agent/test_killed.py and test_armed.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count

import pytest

from tests.e2e.desk import Desk
from tests.e2e.mishaps import await_agent, boot_again, kill_agent
from tests.e2e.steps import in_force, settled, unit
from tests.e2e.underway import Event, Underway

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ["hk1", "hs1", "acme"]
LIMITS = count(512)  # each deploy restarts the relay with another setting


def is_armed(event: Event) -> bool:
    return bool(event["event"] == "armed")


# Each with whether the new state is in force afterwards.
MOMENTS: dict[str, tuple[Callable[[Event], bool], bool]] = {
    "before a change": (lambda event: event["event"] == "want", False),
    "between changes": (lambda event: event["event"] == "result" and event["status"] == "changed", False),
    "armed": (is_armed, False),
    "kept": (lambda event: event["event"] == "kept", True),
    "registering": (lambda event: event["event"] == "plan" and event["host"] == "headscale", True),
}


@pytest.fixture(scope="module", autouse=True)
def hk1_is_deployed(desk: Desk) -> None:
    settled(desk)


def changed(desk: Desk) -> tuple[str, int]:
    """Change a setting in the site file. Return the unit and the generation of before."""
    before = unit(desk), in_force(desk)
    desk.edit("hk1", relay={"connections_per_address": next(LIMITS)})
    return before


def converged(desk: Desk, before: str, number: int) -> None:
    """Deploy: it is proved, and a generation of that number."""
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert ran.proof("hk1")["packets_passed"]
    assert in_force(desk) == number
    assert unit(desk) != before


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_controller_is_killed(desk: Desk, moment: str) -> None:
    before, number = changed(desk)
    is_moment, is_new = MOMENTS[moment]
    with Underway(desk.stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(is_moment)
    for host in ("hk1", "hs1"):
        await_agent(desk.stage, host)
    assert (unit(desk) != before, in_force(desk)) == (is_new, number + is_new)
    verified = desk.invoke("verify", "--host", "hk1")
    assert verified.proof("hk1")["ok"], verified.why()
    converged(desk, before, number + 1)


def kind(event: Event) -> tuple[str, ...]:
    """Return which event it is. The rungs of a proof are one kind, as are results of one status."""
    return tuple(str(event.get(key, "")) for key in ("event", "host", "status"))


def is_of(wanted: tuple[str, ...], event: Event) -> bool:
    return kind(event) == wanted


def test_the_controller_is_killed_at_each_kind_of_event(desk: Desk) -> None:
    """No state between old and new is left, and each is proved."""
    changed(desk)
    kinds = dict.fromkeys(map(kind, desk.invoke("deploy", "--host", "hk1").events))
    sides = set()
    for wanted in kinds:
        before, number = changed(desk)
        with Underway(desk.stage, "deploy", "--host", "hk1") as deploy:
            deploy.until(partial(is_of, wanted))
        for host in ("hk1", "hs1"):
            await_agent(desk.stage, host)
        is_new = unit(desk) != before
        assert in_force(desk) == number + is_new, wanted
        verified = desk.invoke("verify", "--host", "hk1")
        assert verified.proof("hk1")["ok"], (wanted, verified.why())
        sides.add(is_new)
    assert sides == {False, True}


def unconfirmed(desk: Desk) -> list[str]:
    """Return the verbs of changes that nobody has confirmed."""
    return [event["verb"] for event in desk.invoke("history", "--host", "hk1").of("unconfirmed")]


def test_the_agent_is_killed_while_armed(desk: Desk) -> None:
    before, number = changed(desk)
    with Underway(desk.stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(is_armed)
        kill_agent(desk.stage, "hk1")
        ran = deploy.end()
    assert ran.code == 3, ran.why()
    assert unconfirmed(desk) == ["deploy"]
    assert unit(desk) != before
    back = desk.invoke("rollback", "--host", "hk1")
    assert back.code == 0, back.why()
    assert back.proof("hk1")["packets_passed"]
    assert (unit(desk), in_force(desk)) == (before, number)
    converged(desk, before, number + 1)


def test_a_power_cut_while_armed(desk: Desk) -> None:
    before, number = changed(desk)
    with Underway(desk.stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(is_armed)
        desk.stage.hosts["hk1"].stop()
        ran = deploy.end()
    assert ran.code == 3, ran.why()
    boot_again(desk.stage, "hk1")
    assert unconfirmed(desk) == ["deploy"]
    assert unit(desk) != before  # the services start with what is there
    assert desk.invoke("status", "--host", "hk1").code == 0
    converged(desk, before, number + 1)
    assert unconfirmed(desk) == []
