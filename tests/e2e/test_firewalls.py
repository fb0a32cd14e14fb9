"""Firewalls on a real host: ufw, firewalld and our own table, one after the other.

The tests run in the order of the file. The relay is as small as it can be: no front, a certificate
of its own.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest

import lab
from lab import faults
from tests.e2e.desk import Desk, Ran
from tests.e2e.steps import proved, small, who_may_connect
from tests.support.walks import over_all_pairs

pytestmark = [pytest.mark.lab]
HK1 = "hk1"
ONLY = [HK1]
INSTALL = """apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends ufw firewalld >/dev/null
systemctl disable --quiet --now firewalld"""
# What the refusals advise the operator to run.
START = {
    "ufw": "ufw allow 22/tcp && ufw --force enable",
    "firewalld": "systemctl enable --quiet --now firewalld",
}
STOP = {"ufw": "ufw disable", "firewalld": "systemctl disable --quiet --now firewalld"}
NOTE = "/var/lib/derpfleet/opened-"


@pytest.fixture(scope="module")
def desk(stage: lab.Lab) -> Desk:
    """The host with both firewalls installed and none active, and the relay deployed."""
    desk = Desk(stage)
    sh(desk, INSTALL)
    small(desk, HK1, {"front": "none", "certificate": {"source": "self-signed"}})
    proved(desk, HK1)
    return desk


def sh(desk: Desk, script: str) -> str:
    return desk.stage.run_in(HK1, ["sh", "-ec", script], timeout_s=300).stdout


def in_charge(desk: Desk, *names: str) -> None:
    """Start these firewalls, and stop the others."""
    for name, command in STOP.items():
        if name not in names:
            sh(desk, command)
    for name in names:
        sh(desk, START[name])


def deployed(desk: Desk, mode: str | None, **settings: Any) -> Ran:
    """Deploy with this mode; the packets have to pass, and a second deploy has nothing to do."""
    firewall = {"mode": mode} if mode else {}
    desk.edit(HK1, firewall={**firewall, **settings.pop("firewall", {})}, **settings)
    return proved(desk, HK1)


def left_off(desk: Desk) -> None:
    """Deploy with mode off beside a firewall that closes our ports, and leave it, not proved."""
    desk.edit(HK1, firewall={"mode": "off"}, ports=None)
    ran = desk.invoke("deploy", "--host", HK1, "--keep")
    assert (ran.code, ran.counts(HK1)["failed"]) == (1, 0), ran.why()


# Commands whose lines are what lets us in: now, or after the next start.
OURS = {
    "ufw": (
        "ufw show added | grep derpfleet; ls /etc/ufw/applications.d | grep derpfleet; "
        "iptables -S | grep dapp_derpfleet; ip6tables -S | grep dapp_derpfleet"
    ),
    "enforce": (
        "nft list tables | grep 'inet derpfleet'; "
        "ls /etc/derpfleet/firewall.nft /etc/systemd/system/derpfleet-firewall.service"
    ),
}


def opened_in(desk: Desk, name: str) -> set[str]:
    if name == "firewalld":
        return firewalld_ports(desk, now=False) | firewalld_ports(desk, now=True)
    return set(desk.stage.run_in(HK1, ["sh", "-c", OURS[name]], check=False).stdout.splitlines())


def firewalld_ports(desk: Desk, *, now: bool) -> set[str]:
    """Return its open ports at run time, if it runs, or its permanent ones."""
    runs = sh(desk, "systemctl is-active firewalld || true").strip() == "active"
    if now and not runs:
        return set()
    permanent = "firewall-cmd --permanent" if runs else "firewall-offline-cmd"
    return set(sh(desk, f"{'firewall-cmd' if now else permanent} --list-ports").split())


def test_ufw_moves_our_ports_and_keeps_the_rules_of_others(desk: Desk) -> None:
    in_charge(desk, "ufw")
    # 443 is theirs as well, and one rule is the kernel's only.
    theirs = "ufw allow 443/tcp; ufw allow 8443/tcp comment theirs; ufw deny 25/tcp"
    sh(desk, f"{theirs}; iptables -I INPUT -p tcp --dport 9999 -j ACCEPT")
    before = sh(desk, "ufw show added; iptables -S; ip6tables -S")
    assert deployed(desk, None).changed(HK1)[-1] == "open_ports:ufw"
    assert "ufw allow derpfleet\n" in sh(desk, "ufw show added")

    ran = deployed(desk, None, ports={"stun": 3490}, firewall={"allow": ["60000-60010/udp"]})
    assert "open_ports:ufw" in ran.changed(HK1)
    rules = sh(desk, "iptables -S ufw-user-input; ip6tables -S ufw6-user-input")
    assert "3478" not in rules
    assert rules.count("--dport 3490") == rules.count("--dports 60000:60010") == 2

    # An update that ufw made over SSH: its state is new, the kernel's rules are old.
    sh(desk, "sed -i s/3490/3491/ /etc/ufw/applications.d/derpfleet /etc/ufw/user.rules")
    assert "open_ports:ufw" in proved(desk, HK1).changed(HK1)

    sh(desk, "ufw reload")  # as at boot
    assert desk.invoke("verify", "--host", HK1).code == 0
    left_off(desk)
    assert opened_in(desk, "ufw") == set()
    assert sh(desk, "ufw show added; iptables -S; ip6tables -S") == before
    sh(desk, "ufw delete allow 443/tcp; ufw delete allow 8443/tcp; ufw delete deny 25/tcp")
    sh(desk, "iptables -D INPUT -p tcp --dport 9999 -j ACCEPT")


def test_firewalld_moves_our_ports_and_keeps_those_of_others(desk: Desk) -> None:
    in_charge(desk, "firewalld")
    # In either configuration alone there is a port that we need, too.
    sh(desk, "firewall-cmd --add-port=8443/tcp --add-port=80/tcp")
    sh(desk, "firewall-cmd --permanent --add-port=9000/tcp --add-port=443/tcp")
    sh(desk, "firewall-cmd --add-rich-rule='rule family=ipv4 source address=203.0.113.7 accept'")
    rich = sh(desk, "firewall-cmd --list-rich-rules")
    before = {now: firewalld_ports(desk, now=now) for now in (True, False)}
    assert "open_ports:firewalld" in deployed(desk, None).changed(HK1)
    needed = {"80/tcp", "443/tcp", "3478/udp"}
    for now, ports in before.items():
        assert firewalld_ports(desk, now=now) == ports | needed

    # A range around a port of theirs.
    ran = deployed(desk, None, ports={"stun": 3490}, firewall={"allow": ["8440-8450/tcp"]})
    assert "open_ports:firewalld" in ran.changed(HK1)
    assert {"3490/udp", "8443/tcp"} <= firewalld_ports(desk, now=True)
    assert "3478/udp" not in firewalld_ports(desk, now=True) | firewalld_ports(desk, now=False)

    left_off(desk)
    for now, ports in before.items():
        assert firewalld_ports(desk, now=now) == ports
    assert sh(desk, "firewall-cmd --list-rich-rules") == rich
    sh(desk, "firewall-cmd --permanent --remove-port=9000/tcp --remove-port=443/tcp")


def test_a_firewalld_that_hangs_is_named_in_bounded_time(desk: Desk) -> None:
    in_charge(desk, "firewalld")
    deployed(desk, "firewalld")
    sh(desk, "systemctl kill --signal=STOP firewalld")
    try:
        ran = desk.invoke("deploy", "--host", HK1, timeout_s=120)
    finally:
        sh(desk, "systemctl kill --signal=CONT firewalld")
    assert ran.code == 1
    failure = ran.failure()
    assert failure["what"] == "firewall-cmd --get-default-zone gave no answer in 20 s", ran.why()
    assert "systemctl status firewalld polkit dbus" in failure["why"]
    proved(desk, HK1)


MODES = ("enforce", "ufw", "firewalld", "auto", "off")


def test_a_switch_between_any_two_modes_leaves_nothing_of_the_old_one(desk: Desk) -> None:
    walk = over_all_pairs(MODES)
    assert len(set(pairwise(walk))) == len(walk) - 1 == 20
    own, turn = ("ufw", "firewalld", ""), 0
    for mode in walk:
        if mode == "auto":  # each firewall in turn is the one that is active
            used, turn = own[turn % len(own)], turn + 1
        else:
            used = mode if mode in START else ""
        in_charge(desk, *([used] if used else []))
        deployed(desk, mode)
        guard = used or ("" if mode == "off" else "enforce")
        found = {name: opened_in(desk, name) for name in ("ufw", "firewalld", "enforce")}
        assert {name for name, left in found.items() if left} == ({guard} if guard else set()), (mode, found)
        notes = sh(desk, f"ls {NOTE}* 2>/dev/null || true").split()
        assert notes == ([NOTE + used] if used else [])


def test_what_a_removed_firewall_has_kept_goes_when_it_is_back(desk: Desk) -> None:
    in_charge(desk, "firewalld")
    deployed(desk, None)
    assert json.loads(sh(desk, f"cat {NOTE}firewalld"))
    in_charge(desk)
    sh(desk, "mv /usr/bin/firewall-offline-cmd /root; mv /usr/bin/firewall-cmd /root")
    try:
        assert "firewall:derpfleet" in deployed(desk, None).changed(HK1)
    finally:
        sh(desk, "mv /root/firewall-cmd /root/firewall-offline-cmd /usr/bin/")
    assert firewalld_ports(desk, now=False)
    assert proved(desk, HK1).changed(HK1) == ["open_ports:firewalld"]
    assert firewalld_ports(desk, now=False) == set()
    assert sh(desk, f"ls {NOTE}* 2>/dev/null || true") == ""


def causes(ran: Ran) -> dict[str, tuple[str, str]]:
    """Return cause and next step of each broken rung."""
    rungs = ran.proof(HK1)["rungs"]
    return {rung["name"]: (rung["cause"], rung["next"]) for rung in rungs if rung["status"] == "failed"}


def test_a_firewall_that_drops_and_a_security_group_are_told_apart(desk: Desk) -> None:
    in_charge(desk, "ufw")
    deployed(desk, None)
    sh(desk, "ufw insert 1 deny 443/tcp; ufw insert 1 deny 3478/udp")
    try:
        (cause, step) = causes(desk.invoke("verify", "--host", HK1))["tcp"]
    finally:
        sh(desk, "ufw delete deny 443/tcp; ufw delete deny 3478/udp")
    assert re.fullmatch(r"the host's own firewall drops it \(\d+ packets arrived\)", cause)
    assert step.endswith(f"invoke deploy --site {desk.stage.site_file} --host {HK1} --only role:firewall")

    with faults.blocked(desk.stage, HK1, 443), faults.blocked(desk.stage, HK1, 3478, "udp"):
        (cause, step) = causes(desk.invoke("verify", "--host", HK1))["tcp"]
    assert cause == "no packet arrives at the host: the provider's security group drops them"
    assert step.startswith("open 443/tcp, 80/tcp, 3478/udp in the provider's console, then invoke verify")

    with faults.blocked(desk.stage, HK1, 3478, "udp"):
        (cause, _) = causes(desk.invoke("verify", "--host", HK1))["stun4"]
    assert cause == "no packet arrives at the host: the provider's security group drops them"
    assert desk.invoke("verify", "--host", HK1).code == 0


def test_what_firewalld_rejects_is_its_doing(desk: Desk) -> None:
    in_charge(desk, "firewalld")
    deployed(desk, None)
    sh(desk, "firewall-cmd --remove-port=443/tcp")
    ran = desk.invoke("verify", "--host", HK1)
    assert "the host's own firewall drops it (" in causes(ran)["tcp"][0]
    assert proved(desk, HK1).changed(HK1) == ["open_ports:firewalld"]


def test_a_chain_of_the_hosts_own_is_named_and_the_commands_open_it(desk: Desk) -> None:
    in_charge(desk)
    desk.edit(HK1, firewall={})
    rules = "type filter hook input priority 0; policy drop; tcp dport 22 accept; iif lo accept;"
    state = "ct state established,related accept; meta l4proto ipv6-icmp accept;"
    sh(desk, f"nft 'table inet mine {{ chain in {{ {rules} {state} }}; }}'")
    try:
        ran = desk.invoke("deploy", "--host", HK1)
        assert ran.code == 1
        why = ran.failure()["why"]
        advice = re.search(r"The chain inet mine in of hk1's own nftables closes .* host: (nft .*?);", why)
        assert advice is not None, why
        sh(desk, advice[1])
        deployed(desk, None)
        assert "inet mine" in sh(desk, "nft list tables")
    finally:
        sh(desk, "nft delete table inet mine")


@pytest.mark.parametrize(
    ("own", "again"), [("ufw", "ufw reload"), ("firewalld", "firewall-cmd --reload"), ("", "true")]
)
def test_behind_nginx_other_users_are_kept_from_the_relay_beside_each(
    desk: Desk, own: str, again: str
) -> None:
    in_charge(desk, *([own] if own else []))
    deployed(desk, None, front="nginx")
    sh(desk, again)
    assert who_may_connect(desk, HK1) == ["root", "www-data"]
