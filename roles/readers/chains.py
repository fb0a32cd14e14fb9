"""Follow a stranger's first packet through the chains of a packet filter. Pure.

Only certainty counts: a rule that may let some in, by source, interface or a match that is not
known here, leaves the answer open. Matches and targets have iptables' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Verdict = Literal["open", "closed", "return", "unknown"]
_ENDS: Mapping[str, Verdict] = {"ACCEPT": "open", "DROP": "closed", "REJECT": "closed", "RETURN": "return"}
_GO_ON = ("", "LOG", "NFLOG", "MARK", "CONNMARK", "TRACE")
_NOT_FROM_OUTSIDE = ("lo", "tailscale", "wg", "tun", "docker", "br-", "veth", "virbr")
# Longer walks leave the answer open: a host may print anything.
_STEPS_MAX = 50_000
_TAILNET = re.compile(r"100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.")  # 100.64.0.0/10


@dataclass(frozen=True)
class Rule:
    """A rule of a chain: its matches as (option, value, negated), and its target."""

    matches: tuple[tuple[str, str, bool], ...]
    target: str


class Packet(NamedTuple):
    """A stranger's first packet. `state`: what the kernel's tracking calls it."""

    proto: str
    port: int
    state: str


def has_port(ports: str, port: int) -> bool:
    """Whether `ports`, as `80,443`, `80:90` or `80-90`, has the port."""
    parts = (part.replace("-", ":").partition(":") for part in ports.split(","))
    return any(int(first) <= port <= int(last or first) for first, _, last in parts)


def is_closed(chains: Mapping[str, list[Rule]], base: str, policy: str, packet: Packet) -> bool:
    """Whether a base chain is certain to drop or reject the packet. Raises KeyError, ValueError."""
    verdict = _Walk(chains, packet).through(base)
    return (_ENDS.get(policy) if verdict == "return" else verdict) == "closed"


class _Walk:
    """The way of one packet through the chains."""

    def __init__(self, chains: Mapping[str, list[Rule]], packet: Packet) -> None:
        self.chains, self.packet, self.steps = chains, packet, 0

    def through(self, name: str, depth: int = 0) -> Verdict:
        """Return what a chain does with the packet."""
        if depth > 10:
            return "unknown"
        for rule in self.chains[name]:
            self.steps += 1
            if self.steps > _STEPS_MAX:
                return "unknown"
            hits = [_hits(match, self.packet) for match in rule.matches]
            if False in hits or rule.target in _GO_ON:
                continue
            verdict: Verdict = _ENDS.get(rule.target, "unknown")
            if rule.target in self.chains:
                verdict = self.through(rule.target, depth + 1)
                if verdict == "return":
                    continue
            if None not in hits:
                return verdict
            if verdict != "closed":
                return "unknown"
        return "return"


def _hits(match: tuple[str, str, bool], packet: Packet) -> bool | None:
    """Whether a stranger's first packet matches; None where some may and some may not."""
    option, value, negated = match
    found: bool | None = None
    if option == "-p":
        names = (packet.proto, "all", {"tcp": "6", "udp": "17"}[packet.proto])
        found = any(name in names for name in value.split(","))
    elif option in ("--dport", "--dports"):
        found = has_port(value, packet.port)
    elif option in ("--sport", "--sports"):
        found = False  # strangers' ports are any
    elif option in ("--state", "--ctstate"):
        found = packet.state in value.split(",")
    elif (option == "-i" and value.startswith(_NOT_FROM_OUTSIDE)) or (
        option == "-s" and _TAILNET.match(value)
    ):
        found = False
    return found if found is None else found != negated
