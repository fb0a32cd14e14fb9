"""Certificates by DNS challenges, for several names, and for addresses.

A real BIND has the zone, and a real Pebble asks it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

import lab
from lab import zone
from lab.acme import LIFETIMES_S, SHORT_LIVED_S
from lab.client import LabClient
from tests.e2e.desk import Desk
from tests.e2e.steps import meet, rung, settled
from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
Edit = Callable[..., None]
ON_DISK = "/etc/letsencrypt/live/{}/fullchain.pem"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A lab whose ACME server gives short-lived certificates as well."""
    with own_lab(tmp_path_factory, "dns") as own:
        own.acme.start(lifetimes_s={**LIFETIMES_S, **SHORT_LIVED_S})
        yield own


@pytest.fixture(scope="module")
def tsig(desk: Desk) -> str:
    """The secret of the zone's key."""
    return zone.start(desk.stage)


def by_zone(desk: Desk, secret: str) -> dict[str, object]:
    (desk.stage.root / "tsig").write_text(secret)
    server = str(desk.stage.topology.ipv4(zone.ZONE_HOST))
    own = {"provider": "rfc2136", "server": server, "port": zone.ZONE_PORT, "key_name": zone.KEY_NAME}
    return {"challenge": "dns", "dns": own | {"propagation_s": 1, "secret": "file:tsig"}}


def shown(desk: Desk, name: str) -> str:
    """Return names and dates of the certificate on hk1's disk."""
    argv = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-dates", "-in", ON_DISK.format(name)]
    return desk.stage.run_in("hk1", argv).stdout


def test_a_wrong_key_says_what_to_change(desk: Desk, tsig: str, edited: Edit) -> None:
    wrong = by_zone(desk, "d3Jvbmctc2VjcmV0LW9mLWEtdHNpZy1rZXkuLi4uLi4=")
    edited("hk1", certificate=wrong)
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 1
    said = str(ran.why())
    assert "certificate.dns.secret" in said and "didn't like the signature" in said, said


def test_a_wildcard_by_the_zone(
    desk: Desk, tsig: str, nodes: tuple[LabClient, LabClient], edited: Edit
) -> None:
    """Several names on one certificate, whose secret is shown nowhere, and which is renewed so."""
    edited("hk1", certificate=by_zone(desk, tsig) | {"names": ["*.derp.lab"]})
    checked = desk.run("check", "--host", "hk1")
    ran = settled(desk)
    found = shown(desk, "hk1.derp.lab")
    assert "DNS:*.derp.lab" in found and "DNS:hk1.derp.lab" in found
    assert tsig not in checked.stdout + checked.stderr + json.dumps(ran.events) + ran.errors
    where = "/etc/derpfleet/dns/credentials"
    assert desk.stage.run_in("hk1", ["stat", "--format=%a %U", where]).stdout == "600 root\n"
    holders = desk.stage.run_in(
        "hk1", ["grep", "-rlF", "--", tsig, "/etc", "/opt", "/var/lib", "/var/log", "/tmp"], check=False
    ).stdout.split()
    modes = desk.stage.run_in("hk1", ["stat", "--format=%a %U", *holders]).stdout.splitlines()
    assert where in holders and set(modes) == {"600 root"}, holders
    renewed = desk.invoke("renew", "--host", "hk1", "--force")
    assert renewed.code == 0, renewed.why()
    desk.stage.run_in("hk1", ["systemctl", "start", "derpfleet-certificate.service"], timeout_s=180)
    meet(desk, nodes)


def test_the_secret_goes_with_the_challenge(desk: Desk, edited: Edit) -> None:
    """By http again: the names that were asked for before are ours to leave out."""
    edited("hk1", certificate={})
    settled(desk)
    assert desk.stage.run_in("hk1", ["test", "-e", "/etc/derpfleet/dns"], check=False).returncode
    renewed = desk.invoke("renew", "--host", "hk1", "--force")
    assert renewed.code == 0, renewed.why()
    assert "*" not in shown(desk, "hk1.derp.lab")


@pytest.mark.parametrize("front", ["nginx", "none"])
def test_a_short_lived_certificate_for_an_address(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit, front: str
) -> None:
    address = str(desk.stage.topology.ipv4("hk1"))
    edited("hk1", front=front, domain=address, certificate={"profile": "shortlived"})
    ran = settled(desk)
    assert f"IP Address:{address}" in shown(desk, address)
    assert "of 7 days left" in rung(ran, "tls")["detail"]
    desk.stage.run_in("hk1", ["systemctl", "start", "derpfleet-certificate.service"], timeout_s=180)
    meet(desk, nodes)
