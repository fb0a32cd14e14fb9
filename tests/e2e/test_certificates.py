"""The sources of certificates and the programs that show them.

Each test edits the site file, deploys with a proof, and deploys again without a change. It starts
from the state that the test before it left on the host, so that the way from any setting to the
next is tested as well.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Callable

import pytest

from lab.certificates import make_server_certificate
from lab.client import LabClient
from lab.process import wait_for
from tests.e2e.desk import CHECKOUT, Desk
from tests.e2e.steps import due, meet, rung, served_leaf, settled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
Edit = Callable[..., None]


def test_our_relay_terminates_tls_itself(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit
) -> None:
    edited("hk1", front="none")
    ran = settled(desk)
    assert "service:nginx.service/gone" in ran.changed("hk1")
    assert (
        desk.stage.run_in("hk1", ["systemctl", "is-active", "nginx"], check=False).stdout.strip() != "active"
    )
    meet(desk, nodes)
    before = served_leaf(desk)
    renewed = desk.invoke("renew", "--host", "hk1", "--force")
    assert renewed.code == 0, renewed.why()
    assert served_leaf(desk) != before
    meet(desk, nodes)


@pytest.mark.parametrize("domain", ["hk1.derp.lab", "its address"])
@pytest.mark.parametrize("front", ["none", "nginx"])
def test_self_signed_and_pinned(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit, front: str, domain: str
) -> None:
    name = str(desk.stage.topology.ipv4("hk1")) if domain == "its address" else domain
    edited("hk1", front=front, domain=name, certificate={"source": "self-signed"})
    assert desk.invoke("check", "--host", "hk1").code == 10
    ran = settled(desk)
    on_disk = f"/etc/derpfleet/certificates/{name}/fullchain.pem"
    script = f"openssl x509 -outform DER -in {on_disk} | sha256sum"
    pin = desk.stage.run_in("hk1", ["sh", "-c", script]).stdout.split()[0]
    assert rung(ran, "tls")["data"]["sha256"] == pin
    assert meet(desk, nodes)["CertName"] == f"sha256-raw:{pin}"
    for verb in ("verify", "check"):
        assert desk.invoke(verb, "--host", "hk1").code == 0
    [status] = desk.invoke("status", "--host", "hk1").of("status")
    assert status["proof"] == "proved"
    for given, code in ((pin, 0), (pin[::-1], 1)):
        assert desk.invoke("verify", "--address", f"{name}:443", "--pin", given).code == code


def test_manual_certificate_whose_key_is_shown_nowhere(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit
) -> None:
    _, chain, key = make_server_certificate("hk1.derp.lab", desk.stage.topology.ipv4("hk1"))
    (desk.stage.root / "hk1.pem").write_bytes(chain)
    (desk.stage.root / "hk1.key").write_bytes(key)
    pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.decode())).hexdigest()
    edited("hk1", certificate={"source": "manual", "fullchain": "hk1.pem", "key": "file:hk1.key", "pin": pin})
    checked = desk.run("check", "--host", "hk1")
    deployed = desk.run("deploy", "--host", "hk1", "--diff")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    ran = settled(desk)
    assert rung(ran, "tls")["data"]["sha256"] == pin
    assert meet(desk, nodes)["CertName"] == f"sha256-raw:{pin}"
    inside = key.decode().splitlines()[1]
    output = (
        checked.stdout
        + checked.stderr
        + deployed.stdout
        + deployed.stderr
        + json.dumps(ran.events)
        + ran.errors
    )
    assert inside not in output
    assert not [
        path for path in (CHECKOUT / ".runs").rglob("*") if path.is_file() and inside in path.read_text()
    ]
    assert inside not in desk.stage.run_in("hk1", ["journalctl", "--no-pager"]).stdout
    where = [
        "grep", "--recursive", "--files-with-matches", "--fixed-strings", "--", inside, "/etc", "/opt",
        "/tmp", "/var",
    ]
    holders = desk.stage.run_in("hk1", where, check=False).stdout.split()
    assert "/etc/derpfleet/certificates/hk1.derp.lab/privkey.pem" in holders
    modes = desk.stage.run_in("hk1", ["stat", "--format=%a %U", *holders]).stdout.splitlines()
    assert set(modes) == {"600 root"}, dict(zip(holders, modes, strict=True))


@pytest.mark.parametrize(
    ("certbot", "front"), [("shipped", "nginx"), ("distribution", "nginx"), ("distribution", "none")]
)
def test_the_timers_own_service_renews(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit, certbot: str, front: str
) -> None:
    edited("hk1", front=front, certificate={"certbot": certbot})
    settled(desk)
    assert (
        desk.stage.run_in("hk1", ["systemctl", "is-active", "derpfleet-certificate.timer"]).stdout.strip()
        == "active"
    )
    start = ["systemctl", "start", "derpfleet-certificate.service"]
    before = served_leaf(desk)
    desk.stage.run_in("hk1", start, timeout_s=180)
    assert served_leaf(desk) == before  # not due
    with due(desk):
        desk.stage.run_in("hk1", start, timeout_s=180)
    assert served_leaf(desk) != before
    meet(desk, nodes)
    assert desk.invoke("deploy", "--host", "hk1").changed("hk1") == []


def test_cron_instead_of_the_timer(desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit) -> None:
    edited("hk1", certificate={"renewal": "cron"})
    settled(desk)
    assert desk.stage.run_in("hk1", ["systemctl", "is-active", "cron"]).stdout.strip() == "active"
    assert (
        desk.stage.run_in(
            "hk1", ["systemctl", "is-active", "derpfleet-certificate.timer"], check=False
        ).stdout.strip()
        != "active"
    )
    table = desk.stage.run_in("hk1", ["cat", "/etc/cron.d/derpfleet-certificate"]).stdout
    [line] = [line for line in table.splitlines() if " root " in line]
    before = served_leaf(desk)
    # Its own command, every minute.
    often = line.replace(line.split(" root ")[0], "* * * * *")
    with due(desk):
        desk.stage.run_in(
            "hk1",
            ["sh", "-c", "cat >/etc/cron.d/often"],
            input=f"PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{often}\n",
        )
        try:
            wait_for(lambda: served_leaf(desk) != before, timeout_s=150, what="cron did not renew")
        finally:
            desk.stage.run_in("hk1", ["rm", "/etc/cron.d/often"])
