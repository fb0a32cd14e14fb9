"""nft's own rules, as nft prints them: which chains close a port to everyone."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest

from engine.facts import Output
from inventory.model import Host
from roles import firewall
from roles.readers.nft import closing, native
from roles.wiring import wire
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

# /etc/nftables.conf of many a tutorial.
WORKSTATION = """
    ct state vmap { established : accept, related : accept, invalid : drop }
    iifname "lo" accept
    ip protocol icmp accept
    meta l4proto ipv6-icmp accept
    tcp dport { 22, 80 } ct state new accept comment "ssh, drop nothing"
    udp dport 51820 counter accept
    log prefix "drop: " counter
    reject with icmpx admin-prohibited
"""


def printed(rules: str, *, family: str = "inet", policy: str = "drop", more: str = "") -> str:
    """Return what the real nft prints of a table with these rules."""
    base = f"type filter hook input priority 0; policy {policy};"
    text = f"table {family} filter {{\n{more}\nchain input {{ {base}\n{rules}\n}}\n}}\n"
    load = ["unshare", "--net", "sh", "-ec", "nft -f - && nft --stateless list ruleset"]
    return subprocess.run(load, input=text, capture_output=True, text=True, check=True).stdout


def closed(ruleset: str, proto: str = "tcp", port: int = 443, version: int = 4) -> list[str]:
    return [str(chain) for chain in closing(ruleset, proto, port, version=version)]


CLOSED = ["inet filter input"]


def test_a_policy_of_drop_closes_what_no_rule_lets_in() -> None:
    ruleset = printed(WORKSTATION)
    assert closed(ruleset) == closed(ruleset, version=6) == closed(ruleset, "udp", 3478) == CLOSED
    assert closed(ruleset, port=80) == closed(ruleset, port=22) == closed(ruleset, "udp", 51820) == []
    assert closed(printed(WORKSTATION.replace("22, 80", "22, 80, 400-500"))) == []


@pytest.mark.parametrize(
    ("rules", "policy"),
    [
        ("", "accept"),
        ("tcp dport 22 accept", "accept"),
        ("tcp dport 443 accept", "drop"),
        ("tcp dport != 22 accept", "drop"),
        ("meta l4proto { tcp, udp } th dport { 443, 3478 } accept", "drop"),
        ("tcp dport vmap { 22 : accept, 443 : accept }", "drop"),
        ("ct state new accept", "drop"),
        ("ct state != invalid accept", "drop"),
        ("iif != lo accept", "drop"),
        # Some may be let in.
        ("ip saddr 203.0.113.0/24 accept", "drop"),
        ("iifname eth0 tcp dport 443 accept", "drop"),
        ("limit rate 5/second accept", "drop"),
        ("tcp dport @web accept", "drop"),
        ("ip saddr vmap { 203.0.113.1 : drop, 203.0.113.2 : accept }", "drop"),
        # Some may be shut out.
        ("ip saddr 203.0.113.0/24 drop", "accept"),
        ("tcp dport 443 limit rate over 5/second drop", "accept"),
        ("tcp dport 443 ct state established drop", "accept"),
        ("tcp flags syn tcp dport @web drop", "accept"),
    ],
)
def test_what_may_come_in_is_not_closed(rules: str, policy: str) -> None:
    web = "set web { type inet_service; elements = { 443 }; }"
    assert closed(printed(rules, policy=policy, more=web)) == []


@pytest.mark.parametrize(
    ("rules", "policy"),
    [
        ("tcp dport 443 drop", "accept"),
        ("tcp dport 443 counter log prefix \"web accept \" reject with tcp reset", "accept"),
        ("meta l4proto tcp reject", "accept"),
        ("tcp dport vmap { 22 : accept, 443 : drop }", "accept"),
        ("ip saddr 100.64.0.0/10 accept", "drop"),
        ("iifname tailscale0 accept", "drop"),
        ("ip saddr 203.0.113.0/24 drop", "drop"),
        ("tcp dport { 22, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95 } accept", "drop"),
        ("icmp type echo-request accept", "drop"),
        ("tcp sport 443 accept", "drop"),
        ("update @seen { ip saddr }", "drop"),
    ],
)
def test_what_is_certain_to_be_closed_is(rules: str, policy: str) -> None:
    seen = "set seen { type ipv4_addr; flags dynamic; }"
    assert closed(printed(rules, policy=policy, more=seen)) == CLOSED


def test_chains_that_are_jumped_to_are_followed() -> None:
    web = "chain web { tcp dport 443 accept\n return\n }"
    assert closed(printed("jump web", more=web)) == []
    assert closed(printed("jump web", more=web.replace("443", "444"))) == CLOSED
    ruleset = printed("tcp dport 443 goto web", more=web.replace("accept", "drop"), policy="accept")
    assert closed(ruleset) == CLOSED
    assert closed(printed("tcp dport vmap { 443 : jump web }", more=web)) == []


def test_a_family_closes_its_own_addresses_only() -> None:
    ruleset = printed("tcp dport { 22, 80 } accept", family="ip")
    assert closed(ruleset) == ["ip filter input"]
    assert closed(ruleset, version=6) == []


def test_tables_of_others_are_told_from_ours_and_iptables() -> None:
    ruleset = printed("", family="inet").replace("filter {", "derpfleet {", 1) + printed("", family="ip")
    assert closed(native(ruleset, ours="derpfleet", has_iptables=False)) == ["ip filter input"]
    assert closed(native(ruleset, ours="derpfleet", has_iptables=True)) == []


@pytest.mark.parametrize("text", ["", "table", "table inet x {\n", "table inet x {\n\tchain y {\n\t\tdrop\n"])
def test_no_rules_close_nothing(text: str) -> None:
    assert closed(text) == []


def refused(ruleset: str, **settings: Any) -> list[str]:
    host = Host(
        name="hk1", domain="hk1.example.org", region={"id": 901, "code": "hk", "name": "HK"}, **settings
    )
    commands = {"nft_ruleset": Output(status=0, stdout=ruleset, stderr="")}
    return firewall.refusals(host, wire(host), replace(DEBIAN_12, commands=commands), NO_NEIGHBOURS)


def test_what_is_closed_is_refused_with_what_opens_it() -> None:
    for addresses in ({}, {"ipv6": "2001:db8::10"}):
        (sentence,) = refused(printed(WORKSTATION), **addresses)
        assert "The chain inet filter input of hk1's own nftables closes 443/tcp, 3478/udp, " in sentence
        assert (
            "nft insert rule inet filter input tcp dport 443 accept && "
            "nft insert rule inet filter input udp dport 3478 accept; " in sentence
        )
        assert "/etc/nftables.conf" in sentence
    assert refused(printed(WORKSTATION), firewall={"mode": "off"}) == []
    assert refused(printed(WORKSTATION.replace("22, 80", "22, 80, 443") + "\n", policy="accept")) != []


def test_the_commands_that_are_named_open_the_ports() -> None:
    (sentence,) = refused(printed(WORKSTATION))
    advice = sentence.partition("Run on the host: ")[2].partition(";")[0]
    load = ["unshare", "--net", "sh", "-ec", f"nft -f - && {advice} && nft --stateless list ruleset"]
    opened = subprocess.run(load, input=printed(WORKSTATION), capture_output=True, text=True, check=True)
    assert refused(opened.stdout) == []
