"""The answers to bad input and bad luck, one row of the table after the other.

Each test goes on from the one before: run the whole file.
"""

# Every row has a test. Those that need no lab are elsewhere:
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
#   cut, killed, power cut        here, the map as well; at every step on every Python:
#                                 tests/agent/test_every_python.py
#   other people's nginx          here; tests/roles/cases/nginx-broken
#   ACME refuses                  here; every reason in words: tests/files/test_certificate.py
#   headscale does not come back  here; the transaction alone:
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
from collections.abc import Callable, Iterator

import pytest
import yaml

import lab
from lab import existing_site, faults
from lab.process import wait_for
from tests.e2e.desk import Desk
from tests.e2e.mishaps import (
    CLOUD_INIT,
    FREEZE_DPKG,
    HOLD_LOCK,
    LISTEN,
    await_agent,
    deployed,
    drop_in,
    elsewhere,
    installed,
    journal,
    kill_agent,
    leaf,
    name_in,
    page,
    purge,
    rate_limited,
    regions,
    state,
    the_map,
    unit,
    without_times,
    words,
)
from tests.e2e.underway import Underway, run_verb, terminal
from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A lab for this file alone: its first tests want bare hosts."""
    with own_lab(tmp_path_factory, "faults", only=["hk1", "sg1", "hs1", "acme"]) as own:
        yield own


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


# The row of refused certificates: hk1 has one by now


def test_a_name_that_leads_elsewhere_contacts_no_host(stage: lab.Lab) -> None:
    before = leaf(stage, "hk1")
    with elsewhere(stage, "hk1"):
        code, text = run_verb(stage, "deploy", "--host", "hk1")
    assert code == 4
    assert "hosts.hk1.domain: hk1.derp.lab leads to" in text
    assert "correct the DNS record" in text
    assert leaf(stage, "hk1") == before


def test_acme_refuses_a_name_that_leads_elsewhere(stage: lab.Lab) -> None:
    before = leaf(stage, "hk1")
    with elsewhere(stage, "hk1"):
        code, text = run_verb(stage, "renew", "--host", "hk1", "--force")
    assert code == 1
    assert "the certificate was not renewed" in text
    assert ":443 still serves a certificate, which ends on " in text
    assert "no certificate: " in text
    assert re.search(
        r"change: (the name leads to another machine|port 80 must be reachable|look at the A and AAAA)", text
    )
    assert leaf(stage, "hk1") == before


def test_acme_refuses_a_closed_port_80(stage: lab.Lab) -> None:
    with faults.blocked(stage, "hk1", 80):
        for _ in range(3):
            before = leaf(stage, "hk1")
            code, text = run_verb(stage, "renew", "--host", "hk1", "--force")
            if leaf(stage, "hk1") == before:
                break
            # Pebble reused an earlier authorization, as it does once in a hundred orders even with
            # PEBBLE_AUTHZREUSE=0.
    assert code == 1
    assert "no certificate: connection: " in text
    assert "change: port 80 must be reachable from everywhere: check the provider's firewall" in text
    assert leaf(stage, "hk1") == before


def test_acme_refuses_for_its_rate_limit(stage: lab.Lab, edited: Callable[..., None]) -> None:
    """Pebble has no limits: nginx in front of it answers new orders as Let's Encrypt does, and
    passes on the rest."""
    before = leaf(stage, "hk1")
    with rate_limited(stage) as (url, ca):
        certificate = yaml.safe_load(stage.site_file.read_text())["defaults"]["certificate"]
        edited("hk1", certificate={**certificate, "server": url, "ca": str(ca)})
        code, text = run_verb(stage, "deploy", "--host", "hk1")
    assert code == 1
    assert "no certificate: rateLimited: too many certificates already issued for derp.lab" in words(text)
    assert "change: wait until the time that it names" in text
    assert leaf(stage, "hk1") == before
    assert Desk(stage).invoke("verify", "--host", "hk1").proof("hk1")["ok"]


# The row of headscale's return


def test_headscale_that_does_not_come_back_gets_its_map_back(
    stage: lab.Lab, edited: Callable[..., None]
) -> None:
    before, served = the_map(stage), regions(stage)
    edited("hk1", region={"id": 901, "code": "hk", "name": "Refused"})
    with drop_in(
        stage,
        "hs1",
        "headscale.service",
        "[Service]\nExecStartPre=/bin/sh -c '! grep -q Refused /etc/headscale/derp.yaml'\n",
    ):
        code, text = run_verb(stage, "deploy", "--host", "hk1")
    assert code == 1
    assert "headscale did not take the map: " in text
    assert "put back: file:/etc/headscale/derp.yaml" in words(text)
    assert "the previous map is in force" in text
    assert the_map(stage) == before
    assert stage.run_in("hs1", ["systemctl", "is-active", "headscale"]).stdout == "active\n"
    assert regions(stage) == served


def test_headscale_that_was_restarted_too_often_for_systemd_takes_the_map(
    stage: lab.Lab, edited: Callable[..., None]
) -> None:
    edited("hk1", region={"id": 901, "code": "hk", "name": "Hong Kong often"})
    with drop_in(stage, "hs1", "headscale.service", "[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=5\n"):
        stage.run_in(
            "hs1", ["sh", "-c", "for n in 1 2 3 4 5; do systemctl restart headscale; done"], check=False
        )
        ran = Desk(stage).invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.of("failure")
    assert stage.headscale.regions()["901"]["region_name"] == "Hong Kong often"  # type: ignore[index]


# The map: unchanged or complete, never between


@pytest.mark.parametrize(
    "moment",
    [
        "diff file:/etc/headscale/derp.yaml",
        "result file:/etc/headscale/derp.yaml",
        "diff service:headscale.service",
    ],
)
@pytest.mark.parametrize("fate", ["killed", "cut"])
def test_the_map_is_unchanged_or_complete(
    stage: lab.Lab, edited: Callable[..., None], moment: str, fate: str
) -> None:
    before = the_map(stage)
    name = f"Hong Kong {moment.split(maxsplit=1)[0]} {fate}"
    complete = before.replace(name_in(before), name)
    edited("hk1", region={"id": 901, "code": "hk", "name": name})
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(
            lambda event: event.get("host") == "headscale" and f"{event['event']} {event.get('id')}" == moment
        )
        if fate == "killed":
            kill_agent(stage, "hs1")
        else:
            faults.hang_up(stage, "hs1", 22)
        ran = deploy.end()
    assert ran.code == 3
    await_agent(stage, "hs1")
    assert the_map(stage) in (before, complete)
    ran = Desk(stage).invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert the_map(stage) == complete
    assert stage.headscale.regions()["901"]["region_name"] == name  # type: ignore[index]


UNTIL_HEADSCALE_ANSWERS = """
import socket, time
while True:
    try:
        socket.create_connection(("hs1.derp.lab", 8080), 2).close()
        break
    except OSError:
        time.sleep(0.5)
"""


def test_the_map_after_a_power_cut_of_the_headscale_host(stage: lab.Lab, edited: Callable[..., None]) -> None:
    before, host = the_map(stage), stage.hosts["hs1"]
    complete = before.replace(name_in(before), "Hong Kong after the cut")
    edited("hk1", region={"id": 901, "code": "hk", "name": "Hong Kong after the cut"})
    with Underway(stage, "deploy", "--host", "hk1") as deploy:
        deploy.until(lambda event: event.get("host") == "headscale" and event["event"] == "diff")
        host.stop()
        assert deploy.end().code == 3
    host.boot()
    answers = "until ssh-keyscan -T 2 hs1.derp.lab 2>/dev/null | grep -q ssh-; do sleep 0.5; done"
    # Its old hardware address may be remembered for a while. The relay asks it about clients.
    stage.run_in("controller", ["sh", "-c", answers], timeout_s=90)
    stage.run_in("hk1", ["python3", "-c", UNTIL_HEADSCALE_ANSWERS], timeout_s=90)
    assert the_map(stage) in (before, complete)
    ran = Desk(stage).invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert the_map(stage) == complete


def test_a_proved_host_is_registered_also_when_a_later_host_is_out_of_reach(
    stage: lab.Lab, edited: Callable[..., None]
) -> None:
    edited("hk1", region={"id": 901, "code": "hk", "name": "Hong Kong alone"})
    with faults.blocked(stage, "sg1", 22):
        ran = Desk(stage).invoke("deploy")
    assert ran.code == 3
    assert ran.failure()["host"] == "sg1"
    assert stage.headscale.regions()["901"]["region_name"] == "Hong Kong alone"  # type: ignore[index]


def test_a_host_that_is_not_proved_is_not_registered_and_ends_the_rollout(
    stage: lab.Lab, edited: Callable[..., None]
) -> None:
    before = the_map(stage)
    edited("hk1", region={"id": 901, "code": "hk", "name": "Hong Kong without STUN"})
    with faults.blocked(stage, "hk1", 3478, "udp"):
        code, text = run_verb(stage, "deploy")
    assert code == 1
    assert (
        "hk1 is deployed but NOT proved: it is not registered, and the hosts after it are left alone"
        in words(text)
    )
    assert "the region stays there. To take it out: invoke withdraw --host hk1" in words(text)
    assert not re.search(r"^sg1 ", text, re.M)
    assert the_map(stage) == before


# The row of nginx and other people's sites: sg1, where nothing was deployed


def test_a_broken_configuration_of_another_site_is_reported_and_not_touched(stage: lab.Lab) -> None:
    blog = existing_site.install(stage, "sg1", "blog.example.net")
    broken = "/etc/nginx/sites-enabled/shop.example.net"
    stage.run_in(
        "sg1", ["sh", "-c", f"cat >{broken}"], input="server { listen 80; server_nam shop.example.net; }\n"
    )
    before = state(stage, "sg1")
    code, text = run_verb(stage, "deploy", "--host", "sg1")
    assert code == 1
    assert "nothing was changed, because something is in the way" in text
    assert "nginx's configuration on sg1 is already invalid, so nothing was changed" in text
    assert f'unknown directive "server_nam" in {broken}:1' in text
    assert state(stage, "sg1") == before
    assert page(stage, blog.domain) == (200, blog.text)
    stage.run_in("sg1", ["rm", broken])


def test_another_site_that_stops_answering_because_of_us_comes_back(stage: lab.Lab) -> None:
    """The site proxies to the distribution's page, which answers by address on port 80: the relay's
    site takes its place."""
    site = existing_site.install(stage, "sg1", "shop.example.net")
    path = f"/etc/nginx/sites-available/{site.domain}"
    written = stage.run_in("sg1", ["cat", path]).stdout
    head, root, tail = written.rpartition(f"root /var/www/{site.domain};")
    assert root
    stage.run_in(
        "sg1",
        ["sh", "-c", f"cat >{path}"],
        input=f"{head}location / {{ proxy_pass http://127.0.0.1/; }}{tail}",
    )
    stage.run_in("sg1", ["systemctl", "reload", "nginx"])
    wait_for(
        lambda: "Welcome to nginx" in page(stage, site.domain)[1],
        timeout_s=5,
        what="the site does not show that page",
    )
    before, folder = (
        page(stage, site.domain),
        "ls -l /etc/nginx/sites-enabled /etc/nginx/sites-available; cat /etc/nginx/nginx.conf",
    )
    configured = stage.run_in("sg1", ["sh", "-c", folder]).stdout
    code, text = run_verb(stage, "deploy", "--host", "sg1")
    assert code == 1
    assert "another site stopped answering as before: https://shop.example.net:443/ gave 200, now " in words(
        text
    )
    assert "put back: " in text
    wait_for(lambda: page(stage, site.domain) == before, timeout_s=3, what="the site is not as before")
    assert "and that did not help" not in text
    assert page(stage, "blog.example.net")[0] == 200
    assert stage.run_in("sg1", ["nginx", "-t"], check=False).returncode == 0
    assert without_times(stage.run_in("sg1", ["sh", "-c", folder]).stdout) == without_times(configured)
