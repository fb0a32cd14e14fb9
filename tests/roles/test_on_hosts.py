"""The roles on real hosts of a small lab: what is in the way, neighbours in nginx, every way to
change one's mind, a reboot.

The tests run in the order of the file; each test says what it expects to find on the host.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab
from artefacts import go
from artefacts.image import write_derper_image
from lab import existing_site, faults
from lab.certificates import make_server_certificate
from lab.process import wait_for
from lab.programs import DERPER
from tests.e2e.desk import CHECKOUT, Desk, Ran
from tests.roles.on_hosts import ask, listener, program, reasons, run, site

pytestmark = [pytest.mark.lab]
SSH = {"tcp/22"}
FRONTED = SSH | {"tcp/80", "tcp/443", "udp/3478"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Two bare hosts and an ACME server; the site has no headscale."""
    root = tmp_path_factory.mktemp("roles") / "lab"
    try:
        stage = lab.up(root, only=("acme", "hk1", "sg1"), progress=print)
        site = yaml.safe_load(stage.site_file.read_text())
        del site["headscale"]
        stage.site_file.write_text(yaml.safe_dump(site, sort_keys=False))
        derper = go.built_in(DERPER, cache=stage.cache) / "derper"
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        write_derper_image(
            root / "derper.tar.gz", derper=derper, busybox=Path("/bin/busybox"), ca_bundle=bundle
        )
        yield Desk(stage)
    finally:
        lab.down(root)


# Reasons for a refusal.


def test_ports_that_others_have_are_named_before_anything_is_changed(desk: Desk) -> None:
    with (
        program(desk, "hk1", "squatter", *listener("STREAM", 443)),
        program(desk, "hk1", "turner", *listener("DGRAM", 3478)),
    ):
        why = reasons(desk.invoke("deploy", "--host", "hk1"))
    assert re.search(
        r"port 443/tcp of hk1, where https is to be served, "
        r"is taken by python3 \(pid \d+, squatter\.service\)",
        why,
    )
    assert re.search(
        r"port 3478/udp of hk1, where the relay is to answer STUN, "
        r"is taken by python3 \(pid \d+, turner\.service\)",
        why,
    )
    assert desk.listening("hk1") == SSH
    assert run(desk, "hk1", "ls", "/etc/derpfleet", "/opt/derpfleet", check=False) == ""


def test_a_listener_that_the_firewall_would_close_is_named(desk: Desk) -> None:
    with program(desk, "hk1", "shop", *listener("STREAM", 8443)):
        why = reasons(desk.invoke("deploy", "--host", "hk1"))
        assert re.search(
            r"python3 \(pid \d+, shop\.service\) listens on 8443/tcp of hk1, "
            r"which the firewall would close: add 8443/tcp",
            why,
        )
        site(desk, "hk1", {"firewall": {"allow": ["8443/tcp"]}})
        assert desk.invoke("check", "--host", "hk1").code == 10
    site(desk, "hk1", {})


def test_a_socket_that_may_be_a_servers_is_a_warning_and_no_refusal(desk: Desk) -> None:
    with program(desk, "hk1", "tuic", *listener("DGRAM", 36712)):
        ran = desk.invoke("check", "--host", "hk1")
    assert ran.code == 10, ran.why()
    warning, opened = sorted(ran.of("warning", "hk1"), key=lambda event: "36712" not in event["text"])
    assert "open to everybody" in opened["text"]  # there is no headscale in this site
    assert (
        "tuic.service) has 36712/udp open: if others speak to it first, add 36712/udp to" in warning["text"]
    )


def test_a_host_whose_own_iptables_rejects_is_refused_with_the_commands_and_not_changed(
    desk: Desk,
) -> None:
    run(
        desk,
        "hk1",
        "sh",
        "-c",
        "apt-get -qq update && apt-get -qq install --no-install-recommends iptables nftables >/dev/null",
    )
    tables = run(desk, "hk1", "nft", "--stateless", "list", "ruleset")
    assert desk.invoke("check", "--host", "hk1").code == 10
    assert run(desk, "hk1", "nft", "--stateless", "list", "ruleset") == tables
    run(
        desk, "hk1", "iptables", "-A", "INPUT", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j",
        "ACCEPT",
    )
    run(desk, "hk1", "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "ACCEPT")
    run(
        desk, "hk1", "iptables", "-A", "INPUT", "!", "-i", "lo", "-j", "REJECT", "--reject-with",
        "icmp-host-prohibited",
    )
    try:
        why = reasons(desk.invoke("deploy", "--host", "hk1"))
        advice = re.search(
            r"close 443/tcp, 3478/udp, 80/tcp, whatever .* Run on the host: (iptables .*?);", why
        )
        assert advice is not None, why
        run(desk, "hk1", "sh", "-c", advice[1])
        assert desk.invoke("check", "--host", "hk1").code == 10
    finally:
        run(desk, "hk1", "iptables", "-F", "INPUT")


def test_another_firewall_is_named_with_what_to_run(desk: Desk) -> None:
    install = "apt-get -qq update && apt-get -qq install --no-install-recommends ufw >/dev/null"
    run(desk, "hk1", "sh", "-c", f"{install} && ufw allow 22/tcp && ufw --force enable")
    try:
        site(desk, "hk1", {"firewall": {"mode": "enforce"}})
        why = reasons(desk.invoke("deploy", "--host", "hk1"))
        assert "ufw is active on hk1, and two firewalls would close each other's ports" in why
        assert "set hosts.hk1.firewall.mode to ufw, and derpfleet opens its ports there" in why
        assert "Or run on the host: ufw disable." in why
        assert desk.listening("hk1") == SSH
    finally:
        run(desk, "hk1", "ufw", "disable")
        site(desk, "hk1", {})
    assert desk.invoke("check", "--host", "hk1").code == 10


def test_a_refusal_of_the_acme_server_is_reported_in_words(desk: Desk) -> None:
    with faults.blocked(desk.stage, "hk1", 80):
        ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 1
    failure = ran.failure()
    assert failure["subject"] == "command:certificate", ran.why()
    assert "no certificate: connection: " in failure["why"]
    assert "\nchange: port 80 must be reachable from everywhere" in failure["why"]


# Changing one's mind: each step is one edit and one deploy, and leaves nothing of the last one
# listening.

DOCKER = {"flavour": "docker", "docker": {"archive": "derper.tar.gz"}}
REGISTRY = (
    "{version: 0.1, http: {addr: 127.0.0.1:5000}, storage: {filesystem: {rootdirectory: /var/lib/registry}}}"
)
STEPS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, FRONTED),
    (
        {"ports": {"https": 3489, "stun": 3479, "backend": 3340, "metrics": 9412}},
        SSH | {"tcp/80", "tcp/3489", "udp/3479"},
    ),
    ({"certificate": {"renewal": "cron"}}, FRONTED),
    (DOCKER, FRONTED | {"tcp/81"}),  # in the host's network, for IPv6; the firewall closes 81
    ({"front": "none"}, SSH | {"tcp/443", "udp/3478"}),
    ({"front": "none", **DOCKER, "certificate": {"source": "self-signed"}}, FRONTED),
    ({}, FRONTED),
]


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_every_change_is_one_deploy_and_the_next_is_empty(desk: Desk, step: int) -> None:
    settings, listening = STEPS[step]
    site(desk, "hk1", settings)
    first = desk.invoke("deploy", "--host", "hk1", timeout_s=600)
    assert first.of("done", "hk1"), first.why()
    assert first.counts("hk1")["failed"] == 0, first.why()
    assert first.proof("hk1")["ok"] or _only_lacks_a_pin(first), first.why()
    assert desk.listening("hk1") == listening
    second = desk.invoke("check", "--host", "hk1")
    assert second.changed("hk1") == []
    assert second.code == 0, second.why()
    assert run(desk, "hk1", "systemctl", "--failed", "--no-legend", "--plain") == ""
    assert _server_key(first) == _server_key_of.setdefault("hk1", _server_key(first)), (
        "the key is kept over flavours"
    )


_server_key_of: dict[str, str] = {}


def _only_lacks_a_pin(ran: Ran) -> bool:
    failed = [rung["name"] for rung in ran.proof("hk1")["rungs"] if rung["status"] == "failed"]
    return failed == ["tls"] and "signed by itself" in str(ran.why())


def _server_key(ran: Ran) -> str:
    rungs = {rung["name"]: rung for rung in ran.proof("hk1")["rungs"]}
    return str(rungs.get("upgrade", {}).get("data", {}).get("server_key") or _server_key_of.get("hk1"))


def test_the_distributions_certbot_does_as_well(desk: Desk) -> None:
    acme = yaml.safe_load(desk.stage.site_file.read_text())["defaults"]["certificate"]
    site(desk, "hk1", {"certificate": {**acme, "certbot": "distribution"}})
    run(
        desk, "hk1", "rm", "-rf", "/etc/letsencrypt/live", "/etc/letsencrypt/renewal",
        "/etc/letsencrypt/archive",
    )
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert {"package:certbot", "command:certificate"} <= set(ran.changed("hk1"))
    assert desk.invoke("renew", "--host", "hk1", "--force").code == 0
    assert desk.invoke("check", "--host", "hk1").code == 0


def test_a_manual_certificate_is_served_and_its_key_is_never_shown(desk: Desk) -> None:
    authority, chain, key = make_server_certificate("hk1.derp.lab", desk.stage.topology.ipv4("hk1"))
    for name, content in (("own-ca.pem", authority), ("own.pem", chain), ("own.key", key)):
        (desk.stage.root / name).write_bytes(content)
    site(
        desk,
        "hk1",
        {
            "certificate": {
                "source": "manual",
                "ca": "own-ca.pem",
                "fullchain": "own.pem",
                "key": "file:own.key",
            }
        },
    )
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert ran.proof("hk1")["ok"]
    secret = key.decode().splitlines()[1]
    assert secret not in str(ran.events) + ran.errors
    assert (
        run(desk, "hk1", "stat", "-c", "%a %U", "/etc/derpfleet/certificates/hk1.derp.lab/privkey.pem")
        == "600 root\n"
    )
    assert desk.invoke("check", "--host", "hk1").code == 0


def test_an_image_is_pulled_from_a_registry_by_its_digest(desk: Desk) -> None:
    site(desk, "hk1", DOCKER)
    assert desk.invoke("deploy", "--host", "hk1").code == 0
    run(desk, "hk1", "apt-get", "-qq", "install", "--no-install-recommends", "docker-registry")
    # Debian's asks for a password.
    run(desk, "hk1", "systemctl", "disable", "--now", "docker-registry")
    run(desk, "hk1", "sh", "-c", f"echo '{REGISTRY}' > /etc/docker/registry/mine.yml")
    run(
        desk, "hk1", "systemd-run", "--quiet", "--unit=registry", "docker-registry", "serve",
        "/etc/docker/registry/mine.yml",
    )
    wait_for(lambda: "127.0.0.1:5000" in run(desk, "hk1", "ss", "-Hltn"), timeout_s=10, what="no registry")
    image = run(
        desk, "hk1", "docker", "container", "inspect", "--format", "{{.Config.Image}}", "derpfleet-derper"
    ).strip()
    run(desk, "hk1", "docker", "tag", image, "127.0.0.1:5000/derper:x")
    run(desk, "hk1", "docker", "push", "--quiet", "127.0.0.1:5000/derper:x")
    pulled = run(
        desk, "hk1", "docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", image
    ).strip()
    run(desk, "hk1", "docker", "rm", "--force", "derpfleet-derper")
    run(desk, "hk1", "docker", "rmi", "--force", "127.0.0.1:5000/derper:x", image)
    site(desk, "hk1", {"flavour": "docker", "docker": {"image": pulled}})
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert {f"image:{pulled}", "container:derpfleet-derper"} <= set(ran.changed("hk1"))
    assert desk.invoke("check", "--host", "hk1").code == 0
    run(desk, "hk1", "systemctl", "stop", "registry")
    site(desk, "hk1", {})
    assert desk.invoke("deploy", "--host", "hk1").code == 0


def test_what_is_closed_is_closed_from_outside(desk: Desk) -> None:
    ask = "import socket,sys; socket.create_connection(('198.51.100.11', int(sys.argv[1])), 2)"
    address = str(desk.stage.topology.ipv4("hk1"))
    with program(desk, "hk1", "late", *listener("STREAM", 8443)):
        for port, reached in ((443, True), (8443, False), (81, False)):
            done = desk.stage.run_in(
                "controller", ["python3", "-c", ask.replace("198.51.100.11", address), str(port)], check=False
            )
            assert (done.returncode == 0) == reached, port


def test_sshd_that_moves_without_a_deploy_is_reached(desk: Desk) -> None:
    moved, address = "/etc/ssh/sshd_config.d/moved.conf", str(desk.stage.topology.ipv4("hk1"))
    greeting = "import socket,sys; print(socket.create_connection((sys.argv[1], 2200), 2).recv(99))"
    ask = ["python3", "-c", greeting, address]
    run(desk, "hk1", "sh", "-c", f"echo Port 22 > {moved}; echo Port 2200 >> {moved}; systemctl restart ssh")
    try:
        wait_for(
            lambda: "SSH-2.0" in desk.stage.run_in("controller", ask, check=False).stdout,
            timeout_s=10,
            what="sshd's new port is closed",
        )
        assert "2200" in run(desk, "hk1", "nft", "list", "set", "inet", "derpfleet", "ssh")
        assert desk.invoke("check", "--host", "hk1").code == 10  # the port is in the table from then on
    finally:
        run(desk, "hk1", "sh", "-c", f"rm {moved}; systemctl restart ssh")


def test_the_services_are_shut_in_as_systemd_sees_them(desk: Desk) -> None:
    said = run(desk, "hk1", "systemd-analyze", "security", "derpfleet-relay.service", "--no-pager")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None
    assert float(found[1]) <= 1.3
    pid = run(desk, "hk1", "systemctl", "show", "--property=MainPID", "--value", "derpfleet-relay.service")
    assert run(desk, "hk1", "ps", "-o", "user=", "-p", pid.strip()).startswith("derpflee")


def test_the_relay_can_write_nowhere_that_root_works_in_even_where_it_once_could(desk: Desk) -> None:
    state, as_relay = "/var/lib/derpfleet-relay", ("runuser", "-u", "derpfleet-relay", "--")
    run(desk, "hk1", "chown", "--recursive", "derpfleet-relay:derpfleet-relay", state)
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert f"directory:{state}" in ran.changed("hk1")
    writable = ("-type", "d", "(", "-writable", "-print", "-o", "!", "-readable", "-prune", ")")
    assert run(desk, "hk1", *as_relay, "find", state, "/etc/derpfleet", "/opt/derpfleet", *writable) == ""
    assert desk.invoke("check", "--host", "hk1").code == 0


def test_after_a_reboot_all_is_as_it_was(desk: Desk) -> None:
    before = desk.listening("hk1")
    host = desk.stage.hosts["hk1"]
    born = host.init
    host.run(["systemctl", "reboot"], check=False)
    wait_for(
        lambda: host.init not in (None, born) and host.is_up(), timeout_s=60, what="hk1 did not come back"
    )
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    assert ran.changed("hk1") == []
    assert desk.listening("hk1") == before
    assert "policy drop" in run(desk, "hk1", "nft", "list", "table", "inet", "derpfleet")


def test_the_firewall_can_be_given_back(desk: Desk) -> None:
    run(desk, "hk1", "nft", "add", "table", "inet", "mine")
    site(desk, "hk1", {"firewall": {"mode": "off"}})
    ran = desk.invoke("deploy", "--host", "hk1")
    assert ran.code == 0, ran.why()
    tables = run(desk, "hk1", "nft", "list", "tables")
    assert "inet derpfleet" not in tables
    assert "inet mine" in tables
    site(desk, "hk1", {})


# Neighbours.


def test_other_sites_are_shared_with_and_go_on_answering(desk: Desk) -> None:
    blog = existing_site.install(desk.stage, "sg1", "blog.derp.lab")
    shop = existing_site.install(desk.stage, "sg1", "shop.derp.lab", http2=True)
    ran = desk.invoke("deploy", "--host", "sg1")
    assert ran.code == 0, ran.why()
    assert desk.invoke("check", "--host", "sg1").code == 0
    address = str(desk.stage.topology.ipv4("sg1"))
    for neighbour in (blog, shop):
        assert ask(desk, f"https://{neighbour.domain}/") == neighbour.text
    # Who asks by address on 443 gets whom they got before; on 80 the welcome page made room for the
    # captive-portal check.
    assert ask(desk, f"https://{address}/") == blog.text
    assert ask(desk, f"http://{address}/generate_204", "--write-out", "%{http_code}") == "204"


def test_a_neighbour_that_stops_answering_rolls_us_back(desk: Desk) -> None:
    conf = "/etc/nginx/sites-available/blog.derp.lab"
    # An edit that nginx has not loaded yet.
    run(desk, "sg1", "sed", "-i", "s|root /var/www/blog.derp.lab;|return 500;|", conf)
    site(desk, "sg1", {"ports": {"https": 3489}})
    ran = desk.invoke("deploy", "--host", "sg1")
    assert ran.code == 7, ran.why()  # the host is as it was
    assert (
        "another site stopped answering as before: https://blog.derp.lab:443/ gave 200, now 500"
        in ran.failure()["why"]
    )
    # By the first of the two reloads whose new workers have taken over when the sites are asked.
    assert re.search(
        r"put back: file:/etc/nginx/sites-enabled/zz-derpfleet-https?\.conf", ran.failure()["why"]
    )
    wait_for(
        lambda: "tcp/3489" not in desk.listening("sg1"),
        timeout_s=10,
        what="nginx still listens where it did not before",
    )
    assert "tcp/443" in desk.listening("sg1")
    run(desk, "sg1", "sed", "-i", "s|return 500;|root /var/www/blog.derp.lab;|", conf)
    run(desk, "sg1", "systemctl", "reload", "nginx")
    ran = desk.invoke("deploy", "--host", "sg1")
    assert ran.code == 0, ran.why()
    # On 443, which is theirs now.
    assert ask(desk, "https://blog.derp.lab/").startswith("The site of blog.derp.lab")


def test_an_nginx_that_was_broken_before_is_reported_and_not_touched(desk: Desk) -> None:
    run(desk, "sg1", "sh", "-c", "echo 'server { prxy_pass x; }' > /etc/nginx/conf.d/mine.conf")
    site(desk, "sg1", {})
    before = run(desk, "sg1", "sh", "-c", "cat /etc/nginx/sites-enabled/* | sha256sum")
    why = reasons(desk.invoke("deploy", "--host", "sg1"))
    assert "is already invalid, so nothing was changed: " in why
    assert 'unknown directive "prxy_pass" in /etc/nginx/conf.d/mine.conf:1' in why
    assert run(desk, "sg1", "sh", "-c", "cat /etc/nginx/sites-enabled/* | sha256sum") == before
    run(desk, "sg1", "rm", "/etc/nginx/conf.d/mine.conf")
    assert desk.invoke("deploy", "--host", "sg1").code == 0


def test_the_relay_can_leave_and_the_neighbours_stay(desk: Desk) -> None:
    site(
        desk,
        "sg1",
        {"front": "none", "ports": {"https": 3489, "http": 8080}, "certificate": {"source": "self-signed"}},
    )
    ran = desk.invoke("deploy", "--host", "sg1")
    assert ran.counts("sg1")["failed"] == 0, ran.why()
    assert ask(desk, "https://blog.derp.lab/").startswith("The site of blog.derp.lab")
    assert run(desk, "sg1", "sh", "-c", "ls /etc/nginx/sites-enabled") == "blog.derp.lab\nshop.derp.lab\n"
    assert {"tcp/443", "tcp/80", "tcp/3489", "tcp/8080"} <= desk.listening("sg1")


def test_a_neighbour_that_is_the_default_of_port_80_leaves_the_captive_portal_check_to_us(desk: Desk) -> None:
    blog = existing_site.install(desk.stage, "sg1", "blog.derp.lab", default=True)
    site(desk, "sg1", {})
    ran = desk.invoke("deploy", "--host", "sg1")
    assert ran.code == 0, ran.why()
    assert desk.invoke("check", "--host", "sg1").code == 0
    address, answer = (
        str(desk.stage.topology.ipv4("sg1")),
        ("--write-out", "%{http_code} %{redirect_url}", "--output", "/dev/null"),
    )
    assert ask(desk, f"http://{address}/generate_204", *answer) == "204 "
    assert ask(desk, f"http://{address}/about", *answer) == "302 http://blog.derp.lab/about"
    assert ask(desk, f"https://{address}/") == blog.text
    unknown = ("--resolve", f"unknown.derp.lab:80:{address}", *answer)
    assert ask(desk, "http://unknown.derp.lab/about", *unknown) == "301 https://unknown.derp.lab/about"
    assert ask(desk, f"https://{blog.domain}/") == blog.text


def test_what_the_manual_says_takes_all_of_it_off_a_host(desk: Desk) -> None:
    manual = (CHECKOUT / "docs" / "EVERY_DAY.md").read_text()
    manual = manual.partition("## Taking it off a host")[2].partition("\n## ")[0]
    block = re.findall(r"^    (invoke .*)$", manual, re.M)
    lines = [shlex.split(line, comments=True) for line in block]
    assert [words[1] for words in lines] == ["withdraw", "uninstall", "uninstall"]
    assert [desk.invoke(*words[1:]).code for words in lines] == [0, 10, 0]
    assert (
        run(desk, "sg1", "find", "/etc", "/opt", "/usr", "/var/lib", "/var/www", "-name", "*derpfleet*") == ""
    )
    assert "derpfleet" not in run(
        desk, "sg1", "sh", "-c", "nft list tables; cat /etc/passwd /etc/group; systemctl list-units --all"
    )
    assert desk.listening("sg1") == {"tcp/22", "tcp/80", "tcp/443"}
    assert ask(desk, "https://blog.derp.lab/").startswith("The site of blog.derp.lab")
