"""The life of two relays, in order.

Each test goes on from the state in which the one before it ended: run the whole file.
"""

from __future__ import annotations

import threading
import time

import pytest

from lab.client import LabClient
from tests.e2e.desk import Desk
from tests.e2e.far import unchanged_in_few_turns
from tests.e2e.steps import exchange

pytestmark = [pytest.mark.lab]


@pytest.fixture(scope="module")
def nodes(desk: Desk) -> tuple[LabClient, LabClient]:
    """Two nodes that can meet only through a relay."""
    return desk.stage.clients["site-a"], desk.stage.clients["site-b"]


def test_check_says_what_would_change_and_changes_nothing(desk: Desk) -> None:
    before = desk.listening("hk1")
    ran = desk.invoke("check", "--host", "hk1")
    assert ran.code == 10
    assert ran.counts("hk1")["changed"] > 20
    assert ran.counts("hk1")["failed"] == 0
    assert desk.listening("hk1") == before
    assert desk.invoke("check", "--host", "hk1").counts("hk1") == ran.counts("hk1")


def test_deploy_ends_with_a_proved_and_registered_relay(desk: Desk) -> None:
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert ran.proof("hk1")["ok"]
    assert ran.proof("hk1")["packets_passed"]
    assert "file:/etc/headscale/derp.yaml" in ran.changed("headscale")
    assert {"tcp/80", "tcp/443", "udp/3478"} <= desk.listening("hk1")
    assert "tcp/81" not in desk.listening("hk1")


def test_deploy_again_changes_nothing(desk: Desk) -> None:
    unchanged_in_few_turns(desk, "hk1")
    assert desk.invoke("check", "--host", "hk1").code == 0


def test_the_doctor_sees_a_deployed_host_and_a_bare_one(desk: Desk) -> None:
    ran = desk.invoke("doctor", "--host", "hk1")
    assert ran.code == 0, [one for one in ran.of("diagnosis") if one["status"] == "failed"]
    seen = {one["check"]: one for one in ran.of("diagnosis", "hk1")}
    assert seen["clock"]["status"] == seen["from outside"]["status"] == seen["certificate"]["status"] == "ok"
    assert "days left" in seen["certificate"]["what"]
    [of_map] = ran.of("diagnosis", "headscale")
    assert of_map["what"].startswith("headscale 0.") and "hk1" in of_map["what"]

    listening = desk.listening("sg1")
    before = desk.invoke("doctor", "--host", "sg1", "--before")
    assert before.code == 0, before.of("diagnosis")
    ran = desk.invoke("doctor")
    failed = [one for one in ran.of("diagnosis") if one["status"] == "failed"]
    assert ran.code == 1 and {one["host"] for one in failed} == {"sg1"}
    assert all(one["what"] and one["why"] and one["next"] for one in failed)
    assert desk.listening("sg1") == listening


def test_two_nodes_exchange_data_through_our_relay(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    for node in nodes:
        node.join()
    # ours, and another operator's that was there before
    assert {901, 910} <= set(nodes[0].regions())
    exchange(nodes, "hk")


def test_deploy_of_all_hosts_adds_the_second_region(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    ran = desk.invoke("deploy")
    assert ran.code == 0, ran.why()
    assert ran.changed("hk1") == []
    assert ran.proof("sg1")["packets_passed"]
    deadline = time.monotonic() + 30
    while 902 not in nodes[0].regions() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert {901, 902, 910} <= set(nodes[0].regions())


def test_two_nodes_exchange_data_through_the_second_relay(nodes: tuple[LabClient, LabClient]) -> None:
    for id, code in ((902, "sg"), (901, "hk")):
        for node in nodes:
            node.move_home(id)
        exchange(nodes, code)


def test_renewal_under_traffic_cuts_no_client_off(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    one, other = nodes
    before = desk.invoke("verify", "--host", "hk1").proof("hk1")
    longest, stop = [0.0], threading.Event()

    def ping() -> None:
        while not stop.is_set():
            began = time.monotonic()
            one.ping(other)
            longest[0] = max(longest[0], time.monotonic() - began)

    pinging = threading.Thread(target=ping)
    pinging.start()
    try:
        ran = desk.invoke("renew", "--host", "hk1", "--force")
    finally:
        stop.set()
        pinging.join()
    assert ran.code == 0, ran.why()
    assert _leaf(ran.proof("hk1")) != _leaf(before)
    assert longest[0] < 2
    assert desk.invoke("deploy", "--host", "hk1").changed("hk1") == []


def _leaf(proof: dict[str, object]) -> object:
    # JSON of a known shape.
    rungs = {rung["name"]: rung for rung in proof["rungs"]}  # type: ignore[attr-defined]
    return rungs["tls"]["data"]["sha256"]


def test_another_https_port_lands_in_the_map(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    desk.edit("hk1", ports={"https": 3489})
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert "tcp/3489" in desk.listening("hk1")
    assert "tcp/443" not in desk.listening("hk1")
    exchange(nodes, "hk")
    desk.edit("hk1", ports=None)
    assert desk.invoke("deploy", "--host", "hk1").code == 0
    exchange(nodes, "hk")


def test_a_flavour_is_switched_by_one_edit_and_back(
    desk: Desk, nodes: tuple[LabClient, LabClient], derper_archive: str
) -> None:
    before = desk.listening("hk1")
    key = _server_key(desk)
    desk.edit("hk1", flavour="docker", docker={"archive": derper_archive})
    ran = desk.invoke("deploy", "--host", "hk1", timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ran.proof("hk1")["packets_passed"]
    # With IPv6 the container is in the host's network, where derper listens on every address: the
    # firewall closes its plain port.
    assert desk.listening("hk1") - {"tcp/81"} == before
    assert (
        desk.stage.run_in(
            "controller", ["curl", "--max-time", "2", "http://hk1.derp.lab:81/"], check=False
        ).returncode
        != 0
    )
    assert (
        desk.stage.run_in(
            "hk1", ["systemctl", "is-active", "derpfleet-relay.service"], check=False
        ).stdout.strip()
        != "active"
    )
    assert _server_key(desk) == key
    exchange(nodes, "hk")
    [row] = desk.invoke("status", "--host", "hk1").of("status")
    assert row["clients"] >= 2
    assert desk.invoke("deploy", "--host", "hk1").changed("hk1") == []
    desk.edit("hk1", flavour=None, docker=None)
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert desk.stage.run_in("hk1", ["docker", "ps", "--quiet"], check=False).stdout == ""
    assert desk.listening("hk1") == before
    exchange(nodes, "hk")


def _server_key(desk: Desk) -> object:
    rungs = {rung["name"]: rung for rung in desk.invoke("verify", "--host", "hk1").proof("hk1")["rungs"]}
    return rungs["upgrade"]["data"]["server_key"]


def test_status_and_its_page(desk: Desk) -> None:
    page = desk.stage.root / "status.html"
    ran = desk.invoke("status", "--html", str(page))
    assert ran.code == 0
    rows = {row["host"]: row for row in ran.of("status")}
    assert rows["hk1"]["proof"] == rows["sg1"]["proof"] == "proved"
    assert rows["hk1"]["clients"] >= 2
    assert rows["hk1"]["certificate_days"] > 30
    assert rows["hk1"]["last_deploy"]
    assert "Hong Kong" in page.read_text()


def test_uninstall_waits_for_a_withdrawal_and_leaves_nothing(desk: Desk) -> None:
    refused = desk.invoke("uninstall", "--host", "sg1")
    assert refused.code == 1
    assert "invoke withdraw " in refused.failure()["next"]
    assert desk.invoke("withdraw", "--host", "sg1").code == 0
    assert desk.invoke("uninstall", "--host", "sg1", "--dry-run").code == 10
    assert desk.invoke("uninstall", "--host", "sg1").code == 0
    ours = "ls -d /etc/*/derpfleet* /etc/*/*/derpfleet* /etc/derpfleet* /opt/derpfleet*"
    ours += " /var/lib/derpfleet* /run/derpfleet*"
    assert desk.stage.run_in("sg1", ["sh", "-c", ours], check=False).stdout == ""
    assert {"tcp/443", "udp/3478"} & desk.listening("sg1") == set()
    again = desk.invoke("uninstall", "--host", "sg1")
    assert again.code == 0 and again.changed("sg1") == []
