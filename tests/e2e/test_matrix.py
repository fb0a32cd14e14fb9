"""The matrix of configurations: one edit of the site file, one deploy that is proved, a second one that changes nothing.

Each test starts from what the one before it left on the host, so that the way from any setting to the next is tested as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import lab
from lab.client import Client
from lab.process import wait_for
from tests.e2e.conftest import Desk, Ran
from tests.e2e.nodes import exchange

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("matrix"), pytest.mark.timeout(900)]
Edit = Callable[..., None]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A lab of this file's own."""
    root = tmp_path_factory.mktemp("matrix") / "lab"
    try:
        yield lab.up(root, progress=print)
    finally:
        lab.down(root)


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    return Desk(stage)


@pytest.fixture(scope="module")
def nodes(desk: Desk) -> tuple[Client, Client]:
    """Two nodes that can meet only through hk1, which is deployed as the lab's site file says."""
    settled(desk)
    found = desk.stage.clients["site-a"], desk.stage.clients["site-b"]
    for node in found:
        node.join()
    exchange(found, "hk")
    return found


def settled(desk: Desk, host: str = "hk1") -> Ran:
    """Deployed, proved, registered; and again, with nothing to do."""
    ran = desk.invoke("deploy", "--host", host, timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ran.proof(host)["packets_passed"]
    again = desk.invoke("deploy", "--host", host)
    assert again.code == 0, again.why()
    assert again.changed(host) == again.changed("headscale") == []
    return ran


def meet(desk: Desk, nodes: tuple[Client, Client]) -> dict[str, Any]:
    """The nodes have the map that `invoke derpmap` prints, dial the relay anew, and exchange data. Returns the relay's node in that map."""
    region = json.loads(desk.run("derpmap").stdout)["Regions"]["901"]
    wanted = {key: value for key, value in region["Nodes"][0].items() if value}
    for node in nodes:
        what = f"{node.name} has another map than {wanted}"
        wait_for(lambda node=node: node.derp_map()[901]["Nodes"] == [wanted], timeout_s=60, what=what)
        node.tailscale("debug", "break-derp-conns")
    exchange(nodes, "hk")
    return wanted


def rung(ran: Ran, name: str, host: str = "hk1") -> dict[str, Any]:
    return next(rung for rung in ran.proof(host)["rungs"] if rung["name"] == name)


def served_leaf(desk: Desk, port: int = 443) -> str:
    """SHA-256 of the certificate that hk1 shows to the controller."""
    show = f"openssl s_client -connect hk1.derp.lab:{port} -servername hk1.derp.lab </dev/null 2>/dev/null"
    script = f"{show} | openssl x509 -outform DER | sha256sum"
    return desk.stage.run_in("controller", ["sh", "-c", script]).stdout.split()[0]


def test_other_ports(desk: Desk, nodes: tuple[Client, Client], edited: Edit) -> None:
    edited("hk1", ports={"https": 3489, "stun": 3490})
    ran = settled(desk)
    assert "port, STUN port" in rung(ran, "map")["detail"]
    assert {"tcp/3489", "udp/3490"} <= desk.listening("hk1")
    assert not {"tcp/443", "udp/3478"} & desk.listening("hk1")
    meet(desk, nodes)


def test_our_relay_terminates_tls_itself(desk: Desk, nodes: tuple[Client, Client], edited: Edit) -> None:
    edited("hk1", front="none")
    ran = settled(desk)
    assert "service:nginx.service/gone" in ran.changed("hk1")
    assert desk.stage.run_in("hk1", ["systemctl", "is-active", "nginx"], check=False).stdout.strip() != "active"
    meet(desk, nodes)
    before = served_leaf(desk)
    renewed = desk.invoke("renew", "--host", "hk1", "--force")
    assert renewed.code == 0, renewed.why()
    assert served_leaf(desk) != before
    meet(desk, nodes)


@pytest.mark.parametrize("domain", ["hk1.derp.lab", "its address"])
@pytest.mark.parametrize("front", ["none", "nginx"])
def test_self_signed_and_pinned(desk: Desk, nodes: tuple[Client, Client], edited: Edit, front: str, domain: str) -> None:
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
