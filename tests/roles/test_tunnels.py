"""Protocols without ports that a host uses, and that the firewall would close."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.facts import Facts, FileFact, Output
from inventory.model import Host
from roles import firewall, paths
from roles.wiring import wire
from tests.support.facts import DEBIAN_12, NO_NEIGHBOURS

HOST = Host(name="hk1", domain="hk1.example.org", region={"id": 901, "code": "hk", "name": "HK"})
WIRING = wire(HOST)
# As `ip -o -d link show up` prints it.
UP = "<POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1480 qdisc noqueue state UNKNOWN mode DEFAULT qlen 1000"
ENDS = "remote 192.0.2.1 local 198.51.100.11 ttl 255 nopmtudisc addrgenmode eui64"
RAW = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  {:>2}: 00000000:{:04X} 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5032795
"""


def facts(*, links: str = "", raw: str = "", states: int = 0, deployed: bool = False) -> Facts:
    files = {"/proc/net/raw": raw} | ({paths.FIREWALL_RULES: "x"} if deployed else {})
    printed = {"links": links, "xfrm": f"\t SAD count {states}\n"}
    return replace(
        DEBIAN_12,
        files={
            path: FileFact(content=content, sha256="", mode="0444", owner="root", group="root")
            for path, content in files.items()
        },
        commands={name: Output(status=0, stdout=text, stderr="") for name, text in printed.items()},
    )


def allowing(entry: str) -> Host:
    return HOST.model_copy(update={"firewall": HOST.firewall.model_copy(update={"allow": (entry,)})})


def link(name: str, words: str) -> str:
    return f"7: {name}: {UP}\\    link/none promiscuity 0 minmtu 0 maxmtu 0 \\    {words} {ENDS} \n"


@pytest.mark.parametrize(
    ("links", "raw", "entry", "words"),
    [
        (link("he@NONE", "sit ip6ip"), "", "41/ip", "6in4 (protocol 41) is in use on hk1 by the link he,"),
        (link("gre1@NONE", "gre"), "", "47/ip", "GRE (protocol 47) is in use on hk1 by the link gre1"),
        (link("tap@eth0", "gretap"), "", "47/ip", "by the link tap,"),
        (link("office@NONE", "vti"), "", "50/ip", "ESP (protocol 50)"),
        (link("t", "ipip ipip"), "", "4/ip", "IPIP (protocol 4)"),
        ("", RAW.format(112, 112), "112/ip", "VRRP (protocol 112) is in use on hk1 by a program's"),
        ("", RAW.format(99, 99), "99/ip", "protocol 99 is in use"),
    ],
)  # fmt: skip
def test_a_tunnel_that_the_firewall_would_close_is_refused(
    links: str, raw: str, entry: str, words: str
) -> None:
    (refusal,) = firewall.refusals(HOST, WIRING, facts(links=links, raw=raw), NO_NEIGHBOURS)
    assert words in refusal
    assert f"add {entry} to hosts.hk1.firewall.allow" in refusal
    assert firewall.refusals(allowing(entry), WIRING, facts(links=links, raw=raw), NO_NEIGHBOURS) == []
    assert firewall.refusals(HOST, WIRING, facts(links=links, raw=raw, deployed=True), NO_NEIGHBOURS) == []


def test_what_is_no_tunnel_is_not_refused() -> None:
    ethernet = f"2: eth0: {UP}\\    link/ether 52:54:00:00:00:01 brd ff:ff:ff:ff:ff:ff promiscuity 0 \n"
    assert firewall.refusals(HOST, WIRING, facts(links=ethernet, raw=RAW.format(1, 1)), NO_NEIGHBOURS) == []
    assert firewall.warnings(HOST, WIRING, facts(links=ethernet), NO_NEIGHBOURS) == []


def test_ipsec_may_be_sent_over_udp_and_is_a_warning() -> None:
    (warning,) = firewall.warnings(HOST, WIRING, facts(states=2), NO_NEIGHBOURS)
    assert "IPsec has keys for ESP (protocol 50) on hk1" in warning
    assert "add 50/ip to hosts.hk1.firewall.allow" in warning
    assert firewall.warnings(allowing("50/ip"), WIRING, facts(states=2), NO_NEIGHBOURS) == []
    both = facts(states=2, links=link("office@NONE", "vti"))
    assert firewall.warnings(HOST, WIRING, both, NO_NEIGHBOURS) == []
    assert len(firewall.refusals(HOST, WIRING, both, NO_NEIGHBOURS)) == 1


def test_an_allowed_protocol_is_open() -> None:
    resources = firewall.resources(allowing("47/ip"), WIRING, facts(), NO_NEIGHBOURS)
    (table,) = [resource for resource in resources if resource.kind == "firewall"]
    assert b"\t\tmeta l4proto { 47 } accept\n" in table.rules  # type: ignore[attr-defined]  # an NftTable
