"""A certificate that another program on the host renews."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable

import pytest

from lab.certificates import make_server_certificate
from lab.client import LabClient
from lab.process import wait_for
from tests.e2e.desk import Desk
from tests.e2e.steps import meet, served_leaf, settled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
FOLDER = "/root/.acme.sh/hk1.derp.lab_ecc"
ON_HOST = {
    "source": "on-host", "fullchain_path": f"{FOLDER}/fullchain.cer", "key_path": f"{FOLDER}/hk1.key",
}  # fmt: skip


def write(desk: Desk) -> str:
    """Write a new certificate as acme.sh does: the key first. Return its SHA-256."""
    _, chain, key = make_server_certificate("hk1.derp.lab", desk.stage.topology.ipv4("hk1"))
    for name, content in (("hk1.key", key), ("fullchain.cer", chain)):
        script = f"umask 077; mkdir -p {FOLDER}; cat >{FOLDER}/{name}"
        desk.stage.run_in("hk1", ["sh", "-c", script], input=content.decode())
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.decode())).hexdigest()


def test_files_that_are_not_there_are_refused(desk: Desk, edited: Callable[..., None]) -> None:
    edited("hk1", certificate=ON_HOST)
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code != 0
    for path in (ON_HOST["fullchain_path"], ON_HOST["key_path"]):
        assert f"{path} on hk1" in str(ran.why())
    assert ran.changed("hk1") == []


@pytest.mark.parametrize("front", ["nginx", "none"])
def test_a_renewal_by_another_program_is_served(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Callable[..., None], front: str
) -> None:
    pin = write(desk)
    edited("hk1", front=front, certificate=ON_HOST | {"pin": pin})
    settled(desk)
    meet(desk, nodes)
    before = served_leaf(desk)
    write(desk)
    wait_for(lambda: served_leaf(desk) != before, timeout_s=60, what="the new certificate is not served")
    assert desk.invoke("renew", "--host", "hk1").code == 0


def test_nothing_is_watched_any_more(desk: Desk, edited: Callable[..., None]) -> None:
    edited("hk1", certificate={})
    settled(desk)
    units = desk.stage.run_in("hk1", ["systemctl", "list-unit-files", "derpfleet-*"], check=False).stdout
    assert "derpfleet-certificate.timer" in units and "watch" not in units
    assert desk.stage.run_in("hk1", ["ls", FOLDER]).stdout.split() == ["fullchain.cer", "hk1.key"]
