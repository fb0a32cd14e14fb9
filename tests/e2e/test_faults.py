"""The answers to bad input and bad luck, one row of the table after the other.

Each test goes on from the one before: run the whole file.
"""

# Every row has a test. Those that need no lab are elsewhere, those that need a deployed relay in
# test_faults_deployed.py ("there"):
#
#   wrong site file               every rule: tests/inventory/test_site_file.py, test_names.py;
#                                 exit 4, no host contacted: tests/fleet/test_wrong_site.py
#   host key unknown, changed     here; tests/engine/test_session.py; with trust and jump hosts:
#                                 tests/engine/test_login.py
#   sudo, no Python, noise        a wrong password here; the rest, and that nothing was sent:
#                                 tests/engine/test_session.py
#   the lock of apt               here; its deadline, every lock file, a stop meanwhile:
#                                 tests/agent/test_packages.py
#   a port taken                  here; every port and program: tests/roles/cases/ports-taken
#   cut, killed, power cut        here; of the map there; at every step on every Python:
#                                 tests/agent/test_every_python.py
#   other people's nginx          there; tests/roles/cases/nginx-broken
#   ACME refuses                  there; every reason in words: tests/files/test_certificate.py
#   headscale does not come back  there; the transaction alone:
#                                 tests/control/test_headscale_transaction.py
#   two deploys at once           here; tests/engine/test_session.py
#   Ctrl-C                        here; several hosts, and pressed twice:
#                                 tests/fleet/shared/test_parallel.py;
#                                 before the agent has begun: tests/engine/test_session.py

from __future__ import annotations

import getpass
import re
import socket
import time
from collections.abc import Callable

import pytest

import lab
from lab import faults
from tests.e2e.desk import Desk
from tests.e2e.mishaps import (
    CLOUD_INIT,
    FREEZE_DPKG,
    HOLD_LOCK,
    LISTEN,
    await_agent,
    deployed,
    kill_agent,
    purge,
    unit,
)
from tests.e2e.observations import installed, journal, regions, state, words
from tests.e2e.underway import Underway, run_verb, terminal

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
# A lab for this file alone: its first tests want bare hosts.
ONLY = ["hk1", "sg1", "hs1", "acme"]


# The row of host keys


def test_an_unknown_host_key_stops_and_says_how_to_look(stage: lab.Lab) -> None:
    pinned, before = stage.known_hosts.read_text(), state(stage, "hk1")
    try:
        stage.known_hosts.write_text("")
        code, text = run_verb(stage, "deploy", "--host", "hk1")
        assert code == 3
        assert "the host key is not known" in text
        assert "compare the key with the host's own and pin it: invoke trust --host hk1" in words(text)
        assert stage.known_hosts.read_text() == ""
    finally:
        stage.known_hosts.write_text(pinned)
    assert state(stage, "hk1") == before


def test_a_changed_host_key_stops_and_says_so(stage: lab.Lab) -> None:
    pinned = stage.known_hosts.read_text()
    lines = {
        name: next(line for line in pinned.splitlines() if line.startswith(name)) for name in ("hk1", "sg1")
    }
    changed = lines["hk1"].rsplit(" ", 1)[0] + " " + lines["sg1"].rsplit(" ", 1)[1] + "\n"
    try:
        stage.known_hosts.write_text(changed)
        for verb in ("deploy", "check", "renew"):
            code, text = run_verb(stage, verb, "--host", "hk1")
            assert code == 3
            assert "the host key has CHANGED" in text
            assert "invoke trust --host hk1 --replace" in words(text)
        assert stage.known_hosts.read_text() == changed
    finally:
        stage.known_hosts.write_text(pinned)


# The row of sudo, Python and noise: one case as an operator meets it, the others in
# tests/engine/test_session.py


def test_a_wrong_sudo_password_is_named(stage: lab.Lab, edited: Callable[..., None]) -> None:
    before = state(stage, "hk1")
    edited("hk1", ssh={"user": "ops", "key": "ssh/id_ed25519", "sudo_password": "cmd:echo mistyped"})
    code, text = run_verb(stage, "deploy", "--host", "hk1")
    assert code == 3
    assert "sudo did not accept the password" in text
    assert "check ssh.sudo_password" in text
    assert "mistyped" not in text
    assert state(stage, "hk1") == before


# The row of taken ports


@pytest.mark.parametrize(
    ("kind", "port", "entry", "key"),
    [("STREAM", 443, "443/tcp", "https"), ("DGRAM", 3478, "3478/udp", "stun")],
)
def test_a_taken_port_is_reported_before_anything_is_changed(
    stage: lab.Lab, kind: str, port: int, entry: str, key: str
) -> None:
    with unit(stage, "hk1", "other-program", LISTEN.format(kind=kind, port=port)):
        before = state(stage, "hk1")
        code, text = run_verb(stage, "deploy", "--host", "hk1")
        assert state(stage, "hk1") == before
    assert code == 1
    assert "nothing was changed, because something is in the way" in text
    assert f"port {entry} of hk1" in text
    assert "is taken by python3 (pid " in text
    assert ", other-program.service)" in text
    assert f"set hosts.hk1.ports.{key} to another port" in text


# The rows of the package manager's lock and of two deploys at once


def test_the_second_of_two_deploys_says_who_is_at_work_and_since_when(stage: lab.Lab) -> None:
    with unit(stage, "hk1", CLOUD_INIT, HOLD_LOCK), Underway(stage, "deploy", "--host", "hk1") as first:
        first.until(lambda event: event["event"] == "waiting")
        began = time.time()
        code, text = run_verb(stage, "deploy", "--host", "hk1")
        assert time.time() - began < 10
        assert code == 5
        who, since = re.search(r"the host is locked by (\S+) since (\S+ \S+)", text).groups()
        assert who == f"{getpass.getuser()}@{socket.gethostname()}"
        assert began - 60 < time.mktime(time.strptime(since, "%Y-%m-%d %H:%M:%S")) < began
        assert run_verb(stage, "check", "--host", "hk1")[0] == 5
        first.interrupt()
        assert first.end(timeout_s=20).code == 130


def test_a_lock_of_cloud_init_is_waited_for_and_named(stage: lab.Lab) -> None:
    """The deadline of this wait is shown in tests/agent/test_packages.py."""
    with terminal(
        stage, "deploy", "--host", "sg1", "--only", "package:nginx", "--only", "package:nftables"
    ) as deploy:
        with unit(stage, "sg1", CLOUD_INIT, HOLD_LOCK):
            deploy.until(" of cloud-final.service")
            time.sleep(3)
            shown = words("\n".join(deploy.screen().lines))
            assert shown.count("waiting") == 1
            holder = r"python3 \(pid \d+\) of cloud-final.service"
            assert re.search(rf"package:\S+: the package manager's lock is held by {holder}", shown)
            assert installed(stage, "sg1") == set()
        deploy.until("package:nginx")
        assert installed(stage, "sg1") >= {"nginx", "nftables"}


# The row of Ctrl-C


def test_ctrl_c_ends_after_the_resource_in_hand_with_a_clean_terminal(stage: lab.Lab) -> None:
    with terminal(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until("package:nftables")
        deploy.press_ctrl_c()
        assert deploy.end() == 130
        screen = deploy.screen()
        assert "stopping after the resource in hand; press Ctrl-C once more to abandon it" in screen.text
        assert "next  run the same command again: it goes on from there" in screen.text
        assert screen.cursor_visible
        assert (screen.column, screen.lines[screen.row :]) == (0, [""])
        assert deploy.is_as_before()
    assert installed(stage, "hk1") >= {"nginx", "nftables"}
    assert stage.run_in("hk1", ["dpkg", "--audit"]).stdout == ""
    assert stage.run_in("hk1", ["pgrep", "--full", "READY 1"], check=False).stdout == ""
    run = journal(stage, "hk1")
    assert run["changed"][-1] == "package:nftables"
    assert run["failed"] == []
    assert len(run["skipped"]) > 20


def test_ctrl_c_twice_abandons_at_once_and_leaves_a_clean_terminal_too(stage: lab.Lab) -> None:
    purge(stage, "hk1")
    with terminal(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until("package:nftables")
        deploy.press_ctrl_c()
        deploy.until("once more to abandon")
        deploy.press_ctrl_c()
        began = time.monotonic()
        assert deploy.end() == 130
        assert time.monotonic() - began < 2
        screen = deploy.screen()
        assert "the agents finish the resource in hand on their own" in words(screen.text)
        assert "Traceback" not in screen.text
        assert screen.cursor_visible
        assert (screen.column, screen.lines[screen.row :]) == (0, [""])
        assert deploy.is_as_before()
    await_agent(stage, "hk1")
    assert installed(stage, "hk1") >= {"nginx", "nftables"}


# The row of cut connections, killed agents and power cuts


def test_a_power_cut_while_packages_are_unpacked(stage: lab.Lab) -> None:
    """Pull the plug: the line is cut first, so that no end of the connection is reported."""
    purge(stage, "hk1")
    host = stage.hosts["hk1"]
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(lambda event: event["event"] == "diff" and event["id"].startswith("package:"))
        stage.run_in("hk1", ["sh", "-c", FREEZE_DPKG], timeout_s=60)
        with faults.unplugged(stage, "hk1"):
            host.stop()
            ran = deploy.end(timeout_s=120)
    assert ran.code == 3
    assert ran.failure()["what"] == "the connection was lost"
    host.boot()
    assert (
        "dpkg was interrupted"
        in stage.run_in("hk1", ["apt-get", "-y", "install", "nginx"], check=False).stderr
    )
    ran = Desk(stage).invoke(
        "deploy", "--host", "hk1", "--only", "package:nginx", "--only", "package:nftables"
    )
    assert ran.counts("hk1")["failed"] == 0, ran.of("failure")
    assert installed(stage, "hk1") >= {"nginx", "nftables"}


def test_an_ssh_connection_cut_in_mid_run(stage: lab.Lab) -> None:
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(lambda event: event["event"] == "diff" and event["id"].startswith("tree:"))
        assert faults.hang_up(stage, "hk1", 22) == 1
        ran = deploy.end(timeout_s=90)
    assert ran.code == 3
    assert ran.failure()["what"] == "the connection was lost"
    assert "run the same command again" in ran.failure()["next"]
    await_agent(stage, "hk1")
    run = journal(stage, "hk1")
    assert run["failed"] == []
    assert run["changed"]
    assert run["skipped"]


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8])
def test_an_agent_killed_in_mid_run(stage: lab.Lab, after: int) -> None:
    """Each run gets a little further than the one before it."""
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        for _ in range(after):
            event = deploy.until(
                lambda event: event["event"] in ("diff", "proof") and event.get("host") == "hk1"
            )
            assert event["event"] == "diff", "the run came to its end before it was killed"
        kill_agent(stage, "hk1")
        ran = deploy.end(timeout_s=90)
    assert ran.code == 3
    assert ran.failure()["what"] == "the connection was lost"
    assert not ran.of("proof", "hk1")
    assert regions(stage) == {"910"}


def test_the_next_deploy_converges_from_all_of_that(stage: lab.Lab) -> None:
    ran = deployed(stage, "hk1")
    assert ran.code == 0, ran.of("failure")
    assert ran.proof("hk1")["packets_passed"]
    assert regions(stage) == {"901", "910"}
    again = deployed(stage, "hk1")
    assert again.code == 0
    assert again.changed("hk1") == again.changed("headscale") == []
