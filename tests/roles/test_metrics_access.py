"""`metrics.allow`: who may scrape a relay from elsewhere, in its flags and in the firewall."""

from __future__ import annotations

from typing import Any

import pytest

from engine.resource import NftTable, OpenPorts
from inventory.model import Host
from roles.firewall import nftables, own
from roles.relay.programs import ours
from roles.wiring import wire
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HK1 = {"name": "hk1", "domain": "hk1.example.org", "region": {"id": 901, "code": "hk", "name": "HK"}}
SOURCES = ("100.64.0.0/10", "203.0.113.7/32", "fd7a:115c:a1e0::/48")


def host(*sources: str, **settings: Any) -> Host:
    return Host(**HK1, ports={"metrics": 9411}, metrics={"allow": sources}, **settings)


def rules(of: Host) -> list[str]:
    """Return the lines of our table that let packets to the port in."""
    found = nftables.resources(of, wire(of), DEBIAN_12, NO_NEIGHBOURS)
    [table] = [each for each in found if isinstance(each, NftTable)]
    assert isinstance(table.rules, bytes)
    return [line.strip() for line in table.rules.decode().splitlines() if "9411 accept" in line]


def test_the_firewall_lets_in_the_chosen_addresses_only() -> None:
    assert rules(host(*SOURCES)) == [
        "ip saddr { 100.64.0.0/10, 203.0.113.7/32 } tcp dport 9411 accept",
        "ip6 saddr { fd7a:115c:a1e0::/48 } tcp dport 9411 accept",
    ]
    assert rules(host(SOURCES[2])) == ["ip6 saddr { fd7a:115c:a1e0::/48 } tcp dport 9411 accept"]
    assert rules(host()) == []


@pytest.mark.parametrize(
    ("sources", "flags", "binds"),
    [
        ((), [("-metrics-listen", "127.0.0.1:9411")], ("ipv4:tcp:9411",)),
        (
            SOURCES[:2],
            [("-metrics-listen", ":9411"), ("-metrics-allow", "100.64.0.0/10,203.0.113.7/32")],
            ("tcp:9411",),
        ),
    ],
)
def test_the_relay_listens_for_them_and_refuses_all_others(
    sources: tuple[str, ...], flags: list[tuple[str, ...]], binds: tuple[str, ...]
) -> None:
    assert ours._metrics_flags(host(*sources)) == flags
    assert ours._binds(host(*sources)) == binds


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("ufw", "ufw allow from 100.64.0.0/10 to any port 9411 proto tcp"),
        ("firewalld", "family=ipv4 source address=100.64.0.0/10 port port=9411 protocol=tcp accept"),
    ],
)
def test_in_a_firewall_of_the_host_people_open_it(name: str, command: str) -> None:
    [guard] = [row for row in own.FIREWALLS if row.name == name]
    chosen = host(SOURCES[0])
    [words] = guard.warnings(chosen, wire(chosen), DEBIAN_12, NO_NEIGHBOURS)
    assert "ports.metrics of hk1 is for 100.64.0.0/10 only" in words
    assert command in words
    assert guard.warnings(host(), wire(host()), DEBIAN_12, NO_NEIGHBOURS) == []
    [opened] = guard.resources(chosen, wire(chosen), DEBIAN_12, NO_NEIGHBOURS)
    assert isinstance(opened, OpenPorts)
    assert "9411/tcp" not in opened.ports
