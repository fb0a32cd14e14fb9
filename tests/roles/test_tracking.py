"""The relay's ports that the kernel need not track, beside the rules that a host has already."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.facts import Output
from inventory.model import Host
from roles import firewall
from roles.wiring import wire
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HOST = Host(name="hk1", domain="hk1.example.org", region={"id": 901, "code": "hk", "name": "HK"})
OURS = "table inet derpfleet {\n\tchain input {\n\t\tct state new accept\n\t}\n}\n"
ALL_TCP, STUN = "tcp sport { 80, 81, 443 } notrack", "udp sport { 3478 } notrack"


def rules(host: Host = HOST, **printed: str) -> str:
    """Return the table for a host whose commands print these rules."""
    (found,) = [r for r in resources(host, **printed) if r.id == "firewall:derpfleet"]
    return str(found.rules.decode())


def resources(host: Host, **printed: str) -> list[Any]:
    return firewall.resources(host, wire(host), known(**printed), NO_NEIGHBOURS)


def known(**printed: str) -> Any:
    commands = {name: Output(status=0, stdout=text, stderr="") for name, text in printed.items()}
    return replace(DEBIAN_12, addresses=("198.51.100.11", "2001:db8::11"), commands=commands)


def saved(*lines: str, table: str = "filter", policy: str = "ACCEPT") -> str:
    chain = "INPUT" if table == "filter" else "PREROUTING"
    return "\n".join([f"*{table}", f":{chain} {policy} [0:0]", *lines, "COMMIT", ""])


def test_a_bare_host_tracks_none_of_our_ports() -> None:
    assert ALL_TCP in rules()
    assert STUN in rules()
    assert "chain bounded" not in rules()


def test_a_port_that_docker_publishes_is_tracked_and_bounded() -> None:
    """The chain input sees no packet for it, so it has no limit for each address. certbot's has."""
    host = HOST.model_copy(update={"flavour": "docker", "front": "none"})
    assert "\ttcp sport { 80 } notrack" in rules(host)
    assert "tcp dport { 80 } tcp flags" in rules(host)
    assert STUN not in rules(host)
    assert "udp dport { 3478 } fib daddr type local ct state new limit rate over 50/second" in rules(host)


@pytest.mark.parametrize("word", ["-m state --state", "-m conntrack --ctstate"])
def test_a_port_that_the_hosts_own_rules_let_in_as_new_is_tracked_with_a_warning(word: str) -> None:
    """Packets that are not tracked are not new, and such rules would drop them."""
    accepted = (f"-A INPUT -p udp {word} NEW -m udp --dport 3478 -j ACCEPT",
                "-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT", "-A INPUT -j REJECT")  # fmt: skip
    text = rules(iptables=saved(*accepted))
    assert "tcp sport { 80, 81, 443 } notrack" in text
    assert STUN not in text
    assert "udp dport { 3478 } fib daddr type local ct state new limit rate" in text
    (warning,) = firewall.warnings(HOST, wire(HOST), known(iptables=saved(*accepted)), NO_NEIGHBOURS)
    assert "hk1's own let 3478/udp in only as new connections" in warning
    untracked = saved(accepted[0].replace("NEW", "NEW,UNTRACKED"), *accepted[1:])
    assert STUN in rules(iptables=untracked)
    assert firewall.warnings(HOST, wire(HOST), known(iptables=untracked), NO_NEIGHBOURS) == []


def test_rules_of_nft_that_ask_for_the_state_new_keep_it_and_our_own_table_does_not_count() -> None:
    own = "table inet filter {\n\tchain input {\n\t\ttcp dport { 22, 443 } ct state new accept\n\t}\n}\n"
    assert "notrack" in rules(nft_ruleset=OURS)
    (warning,) = firewall.warnings(HOST, wire(HOST), known(nft_ruleset=OURS + own), NO_NEIGHBOURS)
    assert "443/tcp" in warning
    assert "tcp sport { 81 } notrack" in rules(nft_ruleset=OURS + own)


def test_a_table_that_iptables_save_prints_is_read_there() -> None:
    table = "table ip filter {\n\tchain INPUT {\n\t\tct state new tcp dport 22 accept\n\t}\n}\n"
    assert STUN in rules(nft_ruleset=table, iptables=saved("-A INPUT -j ACCEPT"))
    assert STUN not in rules(nft_ruleset=table)


@pytest.mark.parametrize(
    ("rule", "tracked"),
    [
        ("-A PREROUTING -p tcp -m tcp --dport 8443 -j REDIRECT --to-ports 443", {443}),
        ("-A PREROUTING -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 8443", {443}),
        ("-A PREROUTING -p tcp -m tcp --dport 79:80 -j DNAT --to-destination 10.0.0.9", {80}),
        ("-A PREROUTING -p tcp --dport 8443 -j DNAT --to-destination 198.51.100.11:443", {443}),
        ("-A PREROUTING -p tcp --dport 8443 -j DNAT --to-destination [2001:db8::11]:443", {443}),
        ("-A DOCKER ! -i docker0 -p tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:443", set()),
        ("-A PREROUTING -p udp -m udp --dport 443 -j REDIRECT --to-ports 8443", set()),
        ("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", set()),
        ('-A PREROUTING -p tcp --dport 443 -m comment --comment "torn -j REDIRECT', set()),
    ],
)
def test_a_port_whose_addresses_are_translated_is_tracked(rule: str, tracked: set[int]) -> None:
    text = rules(iptables=saved(rule, table="nat"))
    left = ", ".join(str(port) for port in (80, 81, 443) if port not in tracked)
    assert f"tcp sport {{ {left} }} notrack" in text
    assert STUN in text
    assert firewall.warnings(HOST, wire(HOST), known(iptables=saved(rule, table="nat")), NO_NEIGHBOURS) == []


def test_a_redirect_in_nfts_own_words() -> None:
    own = "table inet nat {\n\tchain pre {\n\t\ttcp dport 8443 redirect to :443\n\t}\n}\n"
    assert "tcp sport { 80, 81 } notrack" in rules(nft_ruleset=own)


def test_an_office_behind_one_address_can_have_more_connections() -> None:
    more = HOST.model_copy(update={"relay": HOST.relay.model_copy(update={"connections_per_address": 6400})})
    assert "@fresh6 { ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 200/second burst 6400 packets }" in (
        rules(more)
    )
