"""The whole lab, as a deploy finds it."""

from __future__ import annotations

import json

import pytest

from lab import Lab, faults
from lab.debian import ADMIN, ADMIN_WITHOUT_PASSWORD
from lab.existing_site import install
from lab.process import wait_for
from lab.topology import HOSTS, PARTS, SITES
from tests.lab import relays

pytestmark = pytest.mark.lab
RELAY_HOSTS = [name for name, spec in HOSTS.items() if spec.kind == "relay"]


def ssh(lab: Lab, user: str, host: str, command: str, *, input: str | None = None) -> str:
    strict = [
        "-o", f"UserKnownHostsFile={lab.known_hosts}", "-o", "StrictHostKeyChecking=yes", "-o",
        "BatchMode=yes", "-i", str(lab.ssh_key),
    ]
    return lab.run_in(
        "controller", ["ssh", "-F", "none", *strict, f"{user}@{host}.derp.lab", command], input=input
    ).stdout


def reaches(lab: Lab, place: str, address: str, port: int) -> bool:
    connect = ["curl", "--silent", "--max-time", "3", "--output", "/dev/null", f"telnet://{address}:{port}"]
    done = lab.run_in(place, connect, input="\n", check=False)
    # 28: connected, and the far end waits
    return done.returncode in (0, 28, 56) and "refused" not in done.stderr


def test_all_parts_are_alive(stage: Lab) -> None:
    assert stage.whole
    assert set(stage.alive()) == {"network", *PARTS}


@pytest.mark.parametrize("place", ["controller", *HOSTS, *SITES])
def test_the_labs_names_mean_the_same_everywhere(stage: Lab, place: str) -> None:
    for name, spec in HOSTS.items():
        found = stage.run_in(place, ["getent", "ahostsv4", spec.domain]).stdout.split()[0]
        assert found == ("127.0.1.1" if place == name else str(stage.topology.ipv4(name)))


@pytest.mark.parametrize("host", RELAY_HOSTS)
def test_a_relay_host_is_bare_and_well(stage: Lab, host: str) -> None:
    here = stage.run_in(
        host, ["sh", "-c", "for p in nginx docker nft certbot derper cron; do command -v $p; done; true"]
    ).stdout
    assert here == ""
    assert stage.run_in(host, ["systemctl", "is-system-running"]).stdout == "running\n"
    assert f"VERSION_CODENAME={HOSTS[host].suite}\n" in stage.run_in(host, ["cat", "/etc/os-release"]).stdout
    assert stage.run_in(host, ["hostname"]).stdout == f"{host}\n"


@pytest.mark.parametrize("host", HOSTS)
def test_logins_with_pinned_keys(stage: Lab, host: str) -> None:
    assert ssh(stage, "root", host, "id -u") == "0\n"
    assert ssh(stage, ADMIN_WITHOUT_PASSWORD, host, "sudo -n id -u") == "0\n"
    password = (stage.root / "ssh" / f"{ADMIN}.password").read_text()
    assert ssh(stage, ADMIN, host, "sudo -n id -u 2>/dev/null || echo asks") == "asks\n"
    assert ssh(stage, ADMIN, host, "sudo -S -p '' id -u", input=password) == "0\n"


def test_no_two_hosts_share_a_key_or_an_identity(stage: Lab) -> None:
    assert len({line.split()[-1] for line in stage.known_hosts.read_text().splitlines()}) == len(HOSTS)
    assert len({(stage.hosts[name].root / "etc/machine-id").read_text() for name in HOSTS}) == len(HOSTS)


def test_a_host_reaches_package_servers_and_its_kernel_settings_are_its_own(stage: Lab) -> None:
    stage.run_in("sg1", ["apt-get", "update", "-q"], timeout_s=120)
    before = stage.run_in("hk1", ["sysctl", "-n", "net.ipv4.tcp_congestion_control"]).stdout
    stage.run_in("sg1", ["sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno"])
    assert stage.run_in("hk1", ["sysctl", "-n", "net.ipv4.tcp_congestion_control"]).stdout == before
    stage.run_in("sg1", ["sysctl", "-qw", f"net.ipv4.tcp_congestion_control={before.strip()}"])


def test_sites_reach_hosts_and_nothing_else(stage: Lab) -> None:
    assert reaches(stage, "site-a", str(stage.topology.ipv4("hk1")), 22)
    for nat in (SITES["site-b"].at, SITES["site-a"].at):
        assert not reaches(stage, "site-a", str(stage.topology.address(nat)), 22)
    assert not reaches(stage, "site-a", str(SITES["site-b"].lan[2]), 22)
    assert not reaches(stage, "site-a", str(stage.topology.way_out[2]), 80)


def test_the_acme_server_answers_and_is_trusted_by_its_own_ca_only(stage: Lab) -> None:
    fetch = ["curl", "--silent", "--fail", "--cacert"]
    directory = json.loads(
        stage.run_in("controller", [*fetch, str(stage.acme.ca), stage.acme.directory_url]).stdout
    )
    assert {"newAccount", "newOrder", "newNonce"} <= directory.keys()
    assert (
        stage.run_in("controller", [*fetch, str(stage.ca), stage.acme.directory_url], check=False).returncode
        == 60
    )
    before = stage.ca.read_text()
    stage.acme.start(reliable=False)
    stage.acme.start()
    assert stage.ca.read_text() != before
    assert stage.ca.read_text().count("BEGIN CERTIFICATE") == before.count("BEGIN CERTIFICATE")


def test_two_nodes_meet_in_a_relay_only(stage: Lab) -> None:
    """Change the map in the order that clients need: add the new region, stop the old relay, see
    them move, remove the old region."""
    a, b = stage.clients["site-a"], stage.clients["site-b"]
    relays.start(stage, "hk1")
    try:
        relays.announce(stage, "hk1")
        for client in (a, b):
            client.join()
        for client in (a, b):
            client.wait_for_home("hk")
        assert a.ping(b).relay == "hk"
        sent = a.send(b, 3_000_000)
        assert sent.ok
        assert sent.relay == "hk"
        # This ping waits for a direct path, and there is none.
        assert a.tailscale("ping", "-c", "2", b.ipv4, check=False).returncode == 1
        relays.start(stage, "sg1")
        relays.announce(stage, "hk1", "sg1")
        wait_for(
            lambda: 902 in a.regions() and 902 in b.regions(),
            timeout_s=20,
            what="the clients do not hear of the new region",
        )
        relays.stop(stage, "hk1")
        for client in (a, b):
            client.wait_for_home("sg", timeout_s=60)
        relays.announce(stage, "sg1")
        back = b.send(a, 1_000_000)
        assert back.ok
        assert back.relay == "sg"
    finally:
        for client in (a, b):
            client.leave()
        for host in RELAY_HOSTS:
            relays.stop(stage, host)
        relays.announce(stage)
    assert not list(a.folder.iterdir())


def test_docker_runs_in_a_host(stage: Lab) -> None:
    script = """set -e
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q; apt-get install -q -y --no-install-recommends docker.io busybox-static
    docker info --format '{{.Driver}}' >/tmp/driver
    tar -C / -c bin/busybox | docker import - tried:1
    docker run --rm --publish 8099:80 --name tried --detach tried:1 /bin/busybox httpd -f -h /bin
    """
    stage.run_in("hk1", ["sh", "-c", script], timeout_s=300)
    try:
        assert stage.run_in("hk1", ["cat", "/tmp/driver"]).stdout == "overlay2\n"
        assert reaches(stage, "controller", str(stage.topology.ipv4("hk1")), 8099)
    finally:
        stage.run_in("hk1", ["docker", "rm", "--force", "tried"])
        stage.run_in(
            "hk1",
            ["apt-get", "purge", "-q", "-y", "--auto-remove", "docker.io", "busybox-static"],
            timeout_s=120,
        )


def test_existing_sites_share_443(stage: Lab) -> None:
    sites = [
        install(stage, "sg1", "blog.example.net", default=True),
        install(stage, "sg1", "shop.example.net", http2=True),
    ]
    try:
        for site in sites:
            (stage.root / "site-ca.pem").write_text(site.ca)
            fetch = [
                "curl",
                "--silent",
                "--fail",
                "--cacert",
                str(stage.root / "site-ca.pem"),
                f"https://{site.domain}/",
            ]
            assert stage.run_in("controller", fetch).stdout == site.text
    finally:
        (stage.root / "site-ca.pem").unlink(missing_ok=True)
        stage.run_in(
            "sg1", ["apt-get", "purge", "-q", "-y", "--auto-remove", "nginx", "nginx-common"], timeout_s=120
        )
        stage.dns.restore()


def test_a_name_can_be_pointed_elsewhere(stage: Lab) -> None:
    def resolved(place: str) -> str:
        return stage.run_in(place, ["getent", "ahostsv4", "hk1.derp.lab"], check=False).stdout.partition(" ")[
            0
        ]

    right, other = str(stage.topology.ipv4("hk1")), stage.topology.ipv4("sg1")
    try:
        for _ in range(5):  # at once, each time
            stage.dns.point("hk1.derp.lab", other)
            assert {resolved(place) for place in ("controller", "hs1", "site-c")} == {str(other)}
            stage.dns.point("hk1.derp.lab")
            assert resolved("controller") == ""
            stage.dns.restore()
            assert resolved("controller") == right
    finally:
        stage.dns.restore()


def test_faults_of_the_network_come_and_go(stage: Lab) -> None:
    address = str(stage.topology.ipv4("hk1"))
    assert reaches(stage, "controller", address, 22)
    with faults.blocked(stage, "hk1", 22):
        assert not reaches_quickly(stage, address)
        assert stage.run_in("sg1", ["ping", "-c", "1", "-W", "2", address]).returncode == 0
    with faults.unplugged(stage, "hk1"):
        assert not reaches_quickly(stage, address)
        assert stage.run_in("sg1", ["ping", "-c", "1", "-W", "1", address], check=False).returncode != 0
    with faults.offline(stage, "hk1"):
        update = ["apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=0"]
        assert stage.run_in("hk1", update, check=False, timeout_s=120).returncode != 0
    assert reaches_quickly(stage, address)


def reaches_quickly(lab: Lab, address: str) -> bool:
    greet = f"import socket; print(socket.create_connection(({address!r}, 22), 1.5).recv(4))"
    return lab.run_in("controller", ["python3", "-c", greet], check=False).stdout == "b'SSH-'\n"


def test_a_connection_can_be_reset_in_the_middle(stage: Lab) -> None:
    hold = f"""
import socket
connection = socket.create_connection(({str(stage.topology.ipv4("hk1"))!r}, 22), 5)
connection.recv(100)
print("connected", flush=True)
try:
    while connection.recv(100): pass
    print("closed")
except ConnectionResetError:
    print("reset")
"""
    stage.processes.start("holder", [*stage.enter, "python3", "-c", hold])
    wait_for(lambda: "connected" in stage.processes.tail("holder"), timeout_s=5, what="no connection")
    assert faults.hang_up(stage, "hk1", 22) == 1
    wait_for(
        lambda: "reset" in stage.processes.tail("holder"),
        timeout_s=5,
        what="no reset",
        why=lambda: stage.processes.tail("holder"),
    )


def test_a_host_comes_back_from_a_reboot_and_from_a_power_cut(stage: Lab) -> None:
    host = stage.hosts["hk1"]
    host.write({"etc/marker": "kept\n"})
    first = host.init
    host.run(["systemctl", "reboot"], check=False)
    wait_for(
        lambda: host.init not in (None, first) and host.is_up(), timeout_s=30, what="hk1 does not come back"
    )
    host.stop()
    assert host.init is None
    assert not stage.alive()["hk1"]
    host.boot()
    assert host.run(["cat", "/etc/marker"]).stdout == "kept\n"
    assert ssh(stage, "root", "hk1", "systemctl is-system-running") == "running\n"
    host.run(["rm", "/etc/marker"])
