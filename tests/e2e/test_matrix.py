"""The matrix of configurations, without certificates.

Each test edits the site file, deploys with a proof, and deploys again without a change. It starts
from the state that the test before it left on the host, so that the way from any setting to the
next is tested as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from lab import existing_site
from lab.client import LabClient
from lab.process import wait_for
from lab.topology import DNS_AT
from roles import paths
from tests.control.tailscale.policies import POLICY
from tests.e2e.desk import CHECKOUT, Desk
from tests.e2e.observations import words
from tests.e2e.steps import exchange, have_both_regions, meet, rung, served_leaf, settled
from tests.support.official import region
from tests.support.tailscale_api import TAILNET, WRITES

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
Edit = Callable[..., None]
CURL = ["curl", "--silent", "--unix-socket", paths.METRICS]


def test_stun_is_silent_while_nginx_is_stopped(desk: Desk) -> None:
    settled(desk)
    for _ in range(3):
        desk.stage.run_in("hk1", ["systemctl", "reload", "nginx"])
        assert rung(desk.invoke("verify", "--host", "hk1"), "stun4")["status"] == "ok"
    desk.stage.run_in("hk1", ["systemctl", "stop", "nginx"])
    try:
        wait_for(
            lambda: front_ok(desk) == "0", timeout_s=20, what="the relay does not see that its front is gone"
        )
        ran = desk.invoke("verify", "--host", "hk1")
    finally:
        desk.stage.run_in("hk1", ["systemctl", "start", "nginx"])
    assert ran.proof("hk1")["failed"] == "tcp"
    assert rung(ran, "stun4")["status"] == "skipped"
    assert "a relay whose front is broken keeps silent, see TCP, https port" in rung(ran, "stun4")["detail"]
    # at once: the relay asks every second while its front is broken
    again = desk.invoke("verify", "--host", "hk1")
    assert again.code == 0, again.why()
    assert front_ok(desk) == "1"


def front_ok(desk: Desk) -> str:
    """Return the metric of the relay on hk1 that says whether its front works."""
    page = desk.stage.run_in("hk1", [*CURL, "http://localhost/metrics"]).stdout
    return next(line.split()[1] for line in page.splitlines() if line.startswith("relay_front_ok "))


def test_other_ports(desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit) -> None:
    edited("hk1", ports={"https": 3489, "stun": 3490})
    ran = settled(desk)
    assert "port, STUN port" in rung(ran, "map")["detail"]
    assert {"tcp/3489", "udp/3490"} <= desk.listening("hk1")
    assert not {"tcp/443", "udp/3478"} & desk.listening("hk1")
    meet(desk, nodes)


def test_logins(desk: Desk, edited: Edit) -> None:
    key = {"key": "ssh/id_ed25519"}
    edited("hk1", certificate=None)
    settled(desk)
    for ssh in (
        {"user": "ops", **key, "sudo_password": "file:ssh/ops.password"},
        {"user": "auto", **key},
        {"user": "root", **key, "jump": "root@sg1.derp.lab"},
        {"user": "ops", **key, "sudo_password": "file:ssh/ops.password", "jump": "auto@sg1.derp.lab:22"},
    ):
        edited("hk1", ssh=ssh)
        ran = desk.invoke("deploy", "--host", "hk1")
        assert ran.code == 0, (ssh, ran.why())
        assert ran.changed("hk1") == [], ssh


def test_a_jump_host_with_another_key_is_refused(desk: Desk, edited: Edit) -> None:
    edited("hk1", ssh={"jump": "root@sg1.derp.lab"})
    before = desk.stage.known_hosts.read_text()
    desk.stage.known_hosts.write_text(
        "".join(line for line in before.splitlines(keepends=True) if "sg1" not in line)
    )
    try:
        ran = desk.invoke("deploy", "--host", "hk1")
        public = desk.stage.run_in(
            "sg1", ["ssh-keygen", "-l", "-f", "/etc/ssh/ssh_host_ed25519_key.pub"]
        ).stdout.split()[1]
        desk.run("trust", "--host", "hk1", "--fingerprint", public)
        trusted = desk.invoke("deploy", "--host", "hk1")
    finally:
        desk.stage.known_hosts.write_text(before)
    assert trusted.code == 0, trusted.why()
    assert ran.code == 3
    assert ran.failure()["what"] == "the jump host's key is not known"
    assert "sg1.derp.lab" in ran.failure()["where"]


def test_an_alias_of_ssh_config(desk: Desk, edited: Edit, tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    config.parent.mkdir()
    config.write_text(
        f"Host relay-of-hk\n  HostName {desk.stage.topology.ipv4('hk1')}\n  User auto\n  "
        f"IdentityFile {desk.stage.ssh_key}\n"
        "  ProxyJump gate\nHost gate\n  HostName sg1.derp.lab\n  User root\n  "
        f"IdentityFile {desk.stage.ssh_key}\n"
    )
    edited("hk1", ssh={"address": "relay-of-hk"})
    site = yaml.safe_load(desk.stage.site_file.read_text())
    del site["defaults"]["ssh"]
    desk.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
    ran = desk.invoke("deploy", "--host", "hk1", env={"HOME": str(tmp_path)})
    assert ran.code == 0, ran.why()
    assert ran.changed("hk1") == []


def test_firewall_off_and_more_ports_allowed(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit
) -> None:
    serve = "systemd-run --quiet --unit=other python3 -m http.server 8443"
    desk.stage.run_in("hk1", ["sh", "-c", serve])
    try:
        edited("hk1", firewall={"allow": ["8443/tcp", "60000-60010/udp"]})
        settled(desk)
        wait_for(lambda: reaches(desk, 8443), timeout_s=10, what="the allowed port is closed")
        assert "60000-60010" in desk.stage.run_in("hk1", ["nft", "list", "ruleset"]).stdout
        edited("hk1", firewall={"mode": "enforce"})
        assert desk.invoke("deploy", "--host", "hk1").code == 0
        assert not reaches(desk, 8443)
        edited("hk1", firewall={"mode": "off"})
        settled(desk)
        assert reaches(desk, 8443)
        assert "derpfleet" not in desk.stage.run_in("hk1", ["nft", "list", "ruleset"]).stdout
        meet(desk, nodes)
    finally:
        desk.stage.run_in("hk1", ["systemctl", "stop", "other"])


def reaches(desk: Desk, port: int) -> bool:
    ask = ["curl", "--silent", "--output", "/dev/null", "--max-time", "2", f"http://hk1.derp.lab:{port}/"]
    return desk.stage.run_in("controller", ask, check=False).returncode == 0


def test_any_relay_by_its_address(desk: Desk, edited: Edit) -> None:
    edited("hk1", firewall=None, ports={"stun": 3490})
    settled(desk)
    ca, words = str(desk.stage.ca), ("verify", "--address", "hk1.derp.lab:443")
    ran = desk.invoke(*words, "--ca", ca, "--stun-port", "3490")
    assert ran.code == 0, ran.why()
    assert rung(ran, "stun4", "hk1.derp.lab:443")["status"] == "ok"
    silent = desk.invoke(*words, "--ca", ca)
    assert silent.code == 1
    assert silent.proof("hk1.derp.lab:443")["failed"] == "stun4"
    assert desk.invoke(*words, "--ca", ca, "--stun-port", "0").code == 0
    # Clients want a pinned certificate without a chain, and an ACME server's has its issuer with
    # it.
    chain = desk.invoke(*words, "--stun-port", "3490", "--pin", served_leaf(desk))
    assert chain.proof("hk1.derp.lab:443")["failed"] == "tls"


def test_the_served_map_is_asked(desk: Desk, edited: Edit) -> None:
    edited("hk1", ports=None)
    settled(desk)
    assert rung(desk.invoke("verify", "--host", "hk1"), "map")["status"] == "ok"
    edited("hk1", ports={"stun": 3499})  # not deployed: the map says otherwise
    assert rung(desk.invoke("verify", "--host", "hk1"), "map")["status"] == "failed"
    edited("hk1", ports=None)
    site = yaml.safe_load(desk.stage.site_file.read_text())
    site["headscale"]["ssh"]["port"] = 2
    desk.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
    ran = desk.invoke("verify", "--host", "hk1")
    assert ran.code == 0
    assert rung(ran, "map")["status"] == "skipped"
    assert "headscale cannot be asked" in rung(ran, "map")["detail"]


def test_a_site_without_headscale(desk: Desk, edited: Edit) -> None:
    edited("hk1", relay={"open": True})
    site = yaml.safe_load(desk.stage.site_file.read_text())
    del site["headscale"]
    desk.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
    ran = desk.run("deploy", "--host", "hk1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for line in ("login.tailscale.com/admin/acls", '"derpMap"', "/etc/headscale/derp.yaml", "hk1.derp.lab"):
        assert line in ran.stdout
    assert "sg1.derp.lab" not in ran.stdout  # never proved, so not to be pasted
    again = desk.invoke("deploy", "--host", "hk1")
    assert again.changed("hk1") == []
    [event] = again.of("derpmap")
    assert list(event["derpmap"]["Regions"]) == ["901"]
    printed = json.loads(desk.run("derpmap").stdout)
    assert printed["Regions"]["901"] == event["derpmap"]["Regions"]["901"]
    assert printed["OmitDefaultRegions"] is True


@pytest.fixture
def api(desk: Desk, tmp_path: Path) -> Iterator[str]:
    """Serve `policy.hujson` in `tmp_path` as a tailnet's policy, in the controller's network."""
    (tmp_path / "policy.hujson").write_text(POLICY)
    argv = [*desk.stage.enter_in("controller"), sys.executable, "-m", "tests.support.tailscale_api", tmp_path]
    trusted = desk.stage.root / "ca.pem"
    before = trusted.read_text()
    with subprocess.Popen(
        argv, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin and server.stdout
        url = server.stdout.readline().strip()
        trusted.write_text(before + (tmp_path / "api-ca.pem").read_text())
        yield url
        trusted.write_text(before)
        server.stdin.close()


def test_a_tailnets_policy(desk: Desk, edited: Edit, api: str, tmp_path: Path) -> None:
    edited("hk1", relay={"open": True})
    site = yaml.safe_load(desk.stage.site_file.read_text())
    del site["headscale"], site["derpmap"]
    site["tailscale"] = {"tailnet": TAILNET, "api": api, "api_key": "env:TS_KEY"}
    desk.stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
    policy, key = tmp_path / "policy.hujson", {"TS_KEY": WRITES, "no_proxy": "127.0.0.1"}
    unable = desk.invoke("deploy", "--host", "hk1", env={"TS_KEY": ""})
    assert unable.code == 4, unable.why()
    ran = desk.invoke("deploy", "--host", "hk1", env=key)
    assert ran.code == 0, ran.why()
    assert [event["changes"] for event in ran.of("policy")] == [["region 901 added"]]
    assert rung(ran, "map")["status"] == "ok"
    begin, end = POLICY.split("\t\t},\n\t},\n")
    assert policy.read_text().startswith(f'{begin}\t\t\t"901": {{') and policy.read_text().endswith(end)
    assert desk.invoke("check", "--host", "hk1", env=key).code == 0
    gone = desk.invoke("withdraw", "--host", "hk1", env=key)
    assert (gone.code, policy.read_text()) == (0, POLICY), gone.why()
    assert desk.invoke("deploy", "--host", "hk1", env=key).code == 0
    assert '"901"' in policy.read_text()


@pytest.fixture
def behind_delays(desk: Desk) -> Iterator[Callable[[str], int]]:
    """`behind_delays("50ms")` puts hk1's STUN at such a distance. Its port on the controller."""
    with ExitStack() as stack:

        def make(rtt: str) -> int:
            listen = f"{desk.stage.topology.address(DNS_AT)}:0"
            to = f"{desk.stage.topology.ipv4('hk1')}:3478"
            argv = [*desk.stage.enter_in("controller"), sys.executable, "-m", "lab.delay", "--udp"]
            proxy = stack.enter_context(
                subprocess.Popen(
                    [*argv, "--listen", listen, "--to", to, "--rtt", rtt],
                    cwd=CHECKOUT, stdout=subprocess.PIPE, text=True,
                )
            )  # fmt: skip
            stack.callback(proxy.terminate)
            assert proxy.stdout
            return int(json.loads(proxy.stdout.readline())["listening"].rpartition(":")[2])

        yield make


def test_official_regions_are_listed_by_distance(
    desk: Desk, behind_delays: Callable[[str], int], tmp_path: Path
) -> None:
    here, hk1 = str(desk.stage.topology.address(DNS_AT)), str(desk.stage.topology.ipv4("hk1"))
    regions = [
        region(1, "far", "far.example", ipv4=here, stun=behind_delays("90ms")),
        region(2, "mid", "mid.example", ipv4=here, stun=behind_delays("40ms")),
        region(3, "dead", "dead.example", ipv4=here, stun=9),
        region(4, "near", "near.example", ipv4=hk1),
    ]
    map = tmp_path / "map.json"
    map.write_text(json.dumps({"Regions": {str(each["RegionID"]): each for each in regions}}))
    ran = desk.invoke("official", "--host", "hk1", "--from", str(map), "--take", "mid")
    assert ran.code == 0, ran.why()
    choice = desk.stage.site_file.with_suffix(".official.json")
    assert json.loads(choice.read_text())["taken"] == [2]
    choice.unlink()
    rows = ran.of("official")
    assert [row["code"] for row in rows] == ["near", "mid", "far", "dead"]
    for place in ("controller", "hk1"):
        near, mid, far, dead = (row["ms"][place] for row in rows)
        assert near < 40 <= mid < 90 <= far and dead is None


def test_a_host_with_sites_of_others(desk: Desk) -> None:
    sites = [
        existing_site.install(desk.stage, "sg1", name) for name in ("www.neighbour.lab", "shop.neighbour.lab")
    ]

    def answers() -> list[str]:
        return [
            desk.stage.run_in(
                "controller", ["curl", "--silent", "--insecure", f"https://{site.domain}/"]
            ).stdout
            for site in sites
        ]

    assert answers() == [site.text for site in sites]
    shown = desk.run("check", "--host", "sg1").stdout
    assert all(f"https://{site.domain}:443/" in shown for site in sites)
    settled(desk, "sg1")
    assert answers() == [site.text for site in sites]
    listeners = desk.stage.run_in("sg1", ["ss", "--no-header", "-tlnp", "sport = :443"]).stdout
    assert "nginx" in listeners and "python" not in listeners


def test_a_region_gets_another_id(desk: Desk, nodes: tuple[LabClient, LabClient], edited: Edit) -> None:
    settled(desk)
    settled(desk, "sg1")
    edited("sg1", region={"id": 922, "code": "sg", "name": "Singapore"})
    settled(desk, "sg1")
    assert {"901", "902", "922"} <= desk.stage.headscale.regions().keys()
    assert "withdraw --host sg1" in words(desk.run("deploy", "--host", "sg1").stdout)
    ran = desk.invoke("withdraw", "--host", "sg1")
    assert ran.code == 0, ran.why()
    assert not {"902", "922"} & desk.stage.headscale.regions().keys()
    assert not {"udp/3478"} & desk.listening("sg1")
    settled(desk, "sg1")
    assert {"901", "922"} <= desk.stage.headscale.regions().keys()
    assert "902" not in desk.stage.headscale.regions()
    exchange(nodes, "hk")


def test_a_relay_is_withdrawn_and_comes_back(desk: Desk, nodes: tuple[LabClient, LabClient]) -> None:
    settled(desk)
    settled(desk, "sg1")
    have_both_regions(nodes)
    for node in nodes:
        node.tailscale("debug", "force-prefer-derp", "901")
    exchange(nodes, "hk")
    for node in nodes:
        node.tailscale("debug", "force-prefer-derp", "0")
    longest, stop = [0.0], threading.Event()

    def ping() -> None:
        while not stop.is_set():
            began = time.monotonic()
            nodes[0].ping(nodes[1], timeout_s=60)
            longest[0] = max(longest[0], time.monotonic() - began)

    pinging = threading.Thread(target=ping)
    pinging.start()
    try:
        ran = desk.invoke("withdraw", "--host", "hk1")
    finally:
        stop.set()
        pinging.join()
    assert ran.code == 0, ran.why()
    assert longest[0] < 20  # 5 to 8 s were measured with nothing else running
    assert "901" not in desk.stage.headscale.regions()
    assert "udp/3478" not in desk.listening("hk1")
    exchange(nodes, "sg")
    renewed = desk.invoke("renew", "--host", "hk1", "--force")
    assert (renewed.code, renewed.of("proof"), len(renewed.of("withdrawn"))) == (0, [], 1), renewed.why()
    seen = desk.invoke("status", "--host", "hk1")
    assert (seen.code, [row["proof"] for row in seen.of("status")]) == (0, ["withdrawn"])
    again = desk.invoke("withdraw", "--host", "hk1")
    assert again.code == 0
    assert again.changed("hk1") == again.changed("headscale") == []
    last = desk.invoke("withdraw", "--host", "sg1")
    assert last.code == 1
    assert "only relay" in last.failure()["what"]
    assert "udp/3478" in desk.listening("sg1")
    assert desk.invoke("deploy", "--host", "hk1").code == 0
    assert "901" in desk.stage.headscale.regions()
