"""The answers to bad luck of a deployed relay: certificates, headscale, its map, other sites.

Each test goes on from the one before: run the whole file. Its rows are in the table of
tests/e2e/test_faults.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import yaml

import lab
from lab import existing_site, faults
from lab.process import wait_for
from tests.e2e.desk import Desk
from tests.e2e.mishaps import await_agent, boot_again, drop_in, elsewhere, kill_agent, rate_limited
from tests.e2e.observations import leaf, name_in, page, regions, state, the_map, without_times, words
from tests.e2e.steps import settled
from tests.e2e.underway import Underway, run_verb

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ["hk1", "sg1", "hs1", "acme"]


@pytest.fixture(scope="module", autouse=True)
def hk1_is_deployed(stage: lab.Lab) -> None:
    """Deploy hk1; sg1 is bare."""
    settled(Desk(stage))


# The row of refused certificates


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
    assert code == 7  # the host is as it was
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
    # JSON of a known shape.
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
    assert stage.headscale.regions()["901"]["region_name"] == name  # type: ignore[index]  # as above


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
    boot_again(stage, "hs1")
    # The relay asks it about clients.
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
    # As above.
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
