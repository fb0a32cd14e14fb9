"""Decide which of the relay's ports need no entry in the kernel's table of connections. Pure.

A packet of a port that is open to everybody needs no state. With it, a stranger's packets would
fill the table, and a full table shuts ssh out, too. State is needed where addresses are
translated, and where the host's own rules let in only what has the state NEW.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.facts import Ask, Facts
from inventory.model import Host
from roles.readers import iptables, nft
from roles.wiring import Use, Wiring

_RULESET = "nft_ruleset"

ASK = Ask(commands={_RULESET: ("nft", "--stateless", "list", "ruleset")})


@dataclass(frozen=True)
class Tracking:
    """The relay's ports by what they need.

    `untracked`: no state. `published`: Docker translates their addresses. `by_rule`: the host's
    own rules let them in by the state NEW only. `translated`: rules of the host's own translate
    their addresses.
    """

    untracked: tuple[Use, ...]
    published: tuple[Use, ...]
    by_rule: tuple[Use, ...]
    translated: tuple[Use, ...]

    def ports(self, proto: str) -> list[int]:
        """Return the ports of a protocol that need no state."""
        return _numbers(self.untracked, proto)

    def tracked_udp(self) -> list[int]:
        """Return the UDP ports that need it."""
        return _numbers((*self.published, *self.by_rule, *self.translated), "udp")


def _numbers(uses: tuple[Use, ...], proto: str) -> list[int]:
    return sorted({use.port for use in uses if use.proto == proto})


def tracking(wiring: Wiring, facts: Facts, *, table: str, saved: tuple[str, ...]) -> Tracking:
    """Return what each port of the relay needs.

    `table`: our own, whose rules do not count. `saved`: names of the commands among the facts that
    print the iptables rules of each address family.
    """
    texts = [facts.commands[name].stdout for name in saved if name in facts.commands]
    native = nft.native(ruleset(facts), ours=table, has_iptables=bool("".join(texts)))
    # Line by line: a host may print anything, and a search over all of it may take for ever.
    lines = native.split("\n")
    redirecting = [line for line in lines if re.search(r"\b(?:redirect|dnat)\b", line)]
    found: dict[str, list[Use]] = {"published": [], "by_rule": [], "translated": [], "untracked": []}
    for use in wiring.uses:
        if wiring.relay_is_published and use.program == "relay":
            kind = "published"
        elif any(iptables.translates(text, use.proto, use.port, facts.addresses) for text in texts) or (
            any(re.search(rf"\b{use.port}\b", line) for line in redirecting)
        ):
            kind = "translated"
        elif use.public and (
            any(iptables.closes_untracked(text, use.proto, use.port) for text in texts)
            or any(re.search(r"\bnew\b", line.partition("ct state ")[2]) for line in lines)
        ):
            kind = "by_rule"
        else:
            kind = "untracked"
        found[kind].append(use)
    return Tracking(**{kind: tuple(uses) for kind, uses in found.items()})


def ruleset(facts: Facts) -> str:
    """Return what nft prints of the host's rules."""
    output = facts.commands.get(_RULESET)
    return output.stdout if output is not None else ""


def warnings(host: Host, found: Tracking) -> list[str]:
    """Return a sentence if the host's own rules keep ports in the table of connections."""
    if not found.by_rule:
        return []
    names = ", ".join(f"{use.port}/{use.proto}" for use in found.by_rule)
    return [
        f"rules of {host.name}'s own let {names} in only as new connections (state NEW), so the kernel keeps "
        "an entry for each of them, and strangers can fill its table: accept these ports there without "
        "a state, and deploy again"
    ]
