"""Orders for which a program that we may not touch gives its port up, and gets it back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from lab.process import wait_for
from tests.e2e.desk import CHECKOUT, Desk
from tests.e2e.mishaps import elsewhere
from tests.e2e.steps import served_leaf, settled
from tests.e2e.underway import verb

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ["hk1", "hs1", "acme"]
Edit = Callable[..., None]
OTHER, RENEWAL = "other.service", "derpfleet-certificate.service"
UNIT = "[Service]\nExecStart=python3 -m http.server --directory /srv 80\n"
STANDALONE = {"challenge": "standalone", "stop": OTHER}


@pytest.fixture(scope="module", autouse=True)
def other(desk: Desk) -> None:
    """A program on port 80 of hk1 that knows nothing of challenges."""
    desk.stage.run_in("hk1", ["sh", "-c", f"cat >/etc/systemd/system/{OTHER}"], input=UNIT)
    desk.stage.run_in("hk1", ["systemctl", "start", OTHER])


@pytest.fixture(autouse=True)
def runs_again(desk: Desk, edited: Edit) -> Iterator[None]:
    """After each test the other program runs, and nothing notes that it was stopped."""
    edited("hk1", front="direct", certificate=STANDALONE)
    yield
    wait_for(lambda: is_active(desk), timeout_s=30, what=f"{OTHER} was not started again")
    assert desk.stage.run_in("hk1", ["test", "-e", "/run/derpfleet-paused"], check=False).returncode


def is_active(desk: Desk) -> bool:
    argv = ["systemctl", "is-active", "--quiet", OTHER]
    return not desk.stage.run_in("hk1", argv, check=False).returncode


def started(desk: Desk) -> str:
    """Return when the other program was started last."""
    argv = ["systemctl", "show", "--property=ExecMainStartTimestampMonotonic", OTHER]
    return desk.stage.run_in("hk1", argv).stdout


def test_another_program_on_the_port_is_refused_unless_it_may_be_stopped(desk: Desk, edited: Edit) -> None:
    edited("hk1", front="direct", certificate={})
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code != 0 and ran.changed("hk1") == []
    assert "port 80/tcp of hk1" in str(ran.why()) and OTHER in str(ran.why())


def test_it_is_stopped_for_the_order_alone(desk: Desk) -> None:
    before = started(desk)
    settled(desk)
    ordered = started(desk)
    assert ordered != before
    desk.stage.run_in("hk1", ["systemctl", "start", RENEWAL], timeout_s=180)  # not due
    assert desk.invoke("renew", "--host", "hk1").code == 0
    assert started(desk) == ordered


def test_a_renewal_by_the_timers_service(desk: Desk) -> None:
    before, ordered = served_leaf(desk), started(desk)
    make_due(desk)
    desk.stage.run_in("hk1", ["systemctl", "start", RENEWAL], timeout_s=180)
    assert served_leaf(desk) != before and started(desk) != ordered


def test_a_renewal_by_hand(desk: Desk) -> None:
    before = served_leaf(desk)
    ran = desk.invoke("renew", "--host", "hk1", "--force")
    assert ran.code == 0, ran.why()
    assert served_leaf(desk) != before


@pytest.mark.parametrize("by", ["timer", "hand"])
def test_an_order_that_is_killed(desk: Desk, by: str) -> None:
    """The other program runs again, and the relay keeps its certificate."""
    before = served_leaf(desk)
    make_due(desk)
    argv, unit = {
        "timer": ([*desk.stage.enter_in("hk1"), "systemctl", "start", RENEWAL], RENEWAL),
        "hand": (verb(desk.stage, "renew", "--host", "hk1", "--force"), "run-*.service"),
    }[by]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as order:
        wait_for(lambda: not is_active(desk), timeout_s=60, what=f"{OTHER} was not stopped")
        desk.stage.run_in("hk1", ["systemctl", "kill", "--signal=KILL", unit])
        assert order.wait(timeout=60) != 0
    assert served_leaf(desk) == before


def test_an_order_that_fails(desk: Desk) -> None:
    """The name leads to another machine. The reason is given, and the other program runs again."""
    before = served_leaf(desk)
    with elsewhere(desk.stage, "hk1"):
        ran = desk.invoke("renew", "--host", "hk1", "--force")
    assert ran.code == 1
    assert "no certificate: " in str(ran.why()) and "still serves a certificate" in str(ran.why())
    assert served_leaf(desk) == before


def make_due(desk: Desk) -> None:
    """Let the certificate be one of another ACME server."""
    path = "/etc/letsencrypt/renewal/hk1.derp.lab.conf"
    desk.stage.run_in("hk1", ["sed", "-i", "s|^server = .*|server = https://other.derp.lab/dir|", path])
