"""Find traffic of a host that has no ports: tunnels, and protocols such as VRRP. Pure.

A firewall that opens ports closes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.facts import Ask, Facts

_LINKS, _STATES = "links", "xfrm"
_RAW = ("/proc/net/raw", "/proc/net/raw6")
# A kind of link, as `ip` names it, and the protocol that it is sent in.
_KINDS = {
    "ipip": 4, "sit": 41, "ip6tnl": 41, "gre": 47, "gretap": 47, "erspan": 47,
    "ip6gre": 47, "ip6gretap": 47, "ip6erspan": 47, "vti": 50, "vti6": 50,
}  # fmt: skip
_ESP = 50
_NAMES = {
    4: "IPIP", 41: "6in4", 47: "GRE", 50: "ESP", 51: "AH", 88: "EIGRP", 89: "OSPF", 103: "PIM",
    112: "VRRP", 115: "L2TP", 132: "SCTP",
}  # fmt: skip
# A host's own pings and listeners to all of IP have these. ICMP is open.
_OF_NO_TUNNEL = (0, 1, 2, 6, 17, 58, 255)

ASK = Ask(
    files=_RAW,
    commands={
        _LINKS: ("ip", "-o", "-d", "link", "show", "up"),
        _STATES: ("ip", "xfrm", "state", "count"),  # without the keys
    },
)


@dataclass(frozen=True)
class InUse:
    """A protocol of IP that is in use, by a link or by a raw socket of a program."""

    protocol: int
    by: str

    def __str__(self) -> str:
        name = _NAMES.get(self.protocol)
        return f"{name} (protocol {self.protocol})" if name else f"protocol {self.protocol}"


def in_use(facts: Facts) -> list[InUse]:
    """Return each protocol that is certain to be in use, once."""
    found: dict[int, str] = {}
    for line in _printed(facts, _LINKS).splitlines():
        name = re.match(r"\d+: ([^:@\s]+)", line)
        kind = re.search(r"\\\s+(\w+) (?:\w+ )?remote ", line)
        if name and kind and kind[1] in _KINDS:
            found.setdefault(_KINDS[kind[1]], f"the link {name[1]}")
    for path in _RAW:
        fact = facts.files.get(path)
        for text in re.findall(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) ", (fact and fact.content) or "", re.M):
            if int(text, 16) not in _OF_NO_TUNNEL:
                found.setdefault(int(text, 16), "a program's raw socket")
    return [InUse(protocol, found[protocol]) for protocol in sorted(found)]


def maybe_in_use(facts: Facts) -> list[InUse]:
    """Return ESP if the kernel has keys for it: it may also be sent over UDP alone."""
    count = re.search(r"\d+", _printed(facts, _STATES))
    has_keys = count is not None and int(count[0]) > 0
    return [InUse(_ESP, "IPsec")] if has_keys and all(use.protocol != _ESP for use in in_use(facts)) else []


def _printed(facts: Facts, name: str) -> str:
    output = facts.commands.get(name)
    return output.stdout if output is not None and output.status == 0 else ""
