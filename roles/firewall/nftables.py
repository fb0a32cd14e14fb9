"""Our nftables table.

Open are the ports of the relay, of nginx's other sites and of the site file. All others are closed.
"""

from __future__ import annotations

import re

from engine.facts import Ask, Facts, asked
from engine.render import render
from engine.resource import Resource
from inventory.model import Host
from roles import paths, ports
from roles.contract import Neighbours, after
from roles.firewall import ssh_ports, tracking, tunnels
from roles.firewall.table import Table
from roles.readers import iptables, nft
from roles.wiring import Use, Wiring

_TABLE = Table(
    name="derpfleet",
    title="derpfleet's firewall table",
    path=paths.FIREWALL_RULES,
    unit="derpfleet-firewall.service",
    wants=(ssh_ports.SERVICE,),
)

# iptables-save without a table's name prints the tables that are there.
# `iptables -S` makes or loads the table that it is asked for.
_SAVED = {"iptables": ("iptables-save",), "ip6tables": ("ip6tables-save",)}

# An address of sshd may have a port of its own, as in ListenAddress 0.0.0.0:8022.
_SSHD = re.compile(r"^(?:port |listenaddress .*:)(\d+)$", re.M)

# An address may open this share of its connections a second, after it has opened all of them.
_SHARE_A_SECOND = 32

ASK = asked(
    Ask(
        files=(paths.FIREWALL_RULES,),
        commands={
            "sshd": ("sshd", "-T"),
            "nft_inet": ("nft", "--check", f"add table inet {_TABLE.name}"),
            **_SAVED,
        },
    ),
    tracking.ASK,
    tunnels.ASK,
)


def resources(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[Resource]:
    """Return the table, and the unit that loads it at boot."""
    return [
        *_TABLE.resources(
            _rules(host, wiring, facts, neighbours), revert_after_s=host.firewall.revert_after_s
        ),
        *ssh_ports.resources(table=_TABLE.name, firewall=_TABLE.unit),
    ]


def _rules(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> bytes:
    opened = open_ports(host, wiring, facts, neighbours)
    tcp, udp, ip = ([port for proto, port in opened if proto == wanted] for wanted in ("tcp", "udp", "ip"))
    found, most = _tracking(wiring, facts), host.relay.connections_per_address
    # Docker forwards to a published port: the chain input sees no packet for it.
    uses = [use for use in wiring.uses if use.public and use not in found.published]
    return render(
        "firewall.nft.j2",
        tcp=tcp,
        udp=udp,
        ip=ip,
        untracked_tcp=found.ports("tcp"),
        untracked_udp=found.ports("udp"),
        tracked_udp=found.tracked_udp(),
        limited=sorted(use.port for use in uses if use.proto == "tcp"),
        rate=max(1, most // _SHARE_A_SECOND),
        burst=most,
        for_some=_for_some(wiring),
    )


def _for_some(wiring: Wiring) -> list[tuple[str, str, int, list[str]]]:
    """Return (family, protocol, port, sources) of each port that is open for some addresses."""
    found = []
    for use in wiring.uses:
        for family, is_six in (("ip", False), ("ip6", True)):
            if sources := [each for each in use.sources if (":" in each) is is_six]:
                found.append((family, use.proto, use.port, sources))
    return found


def _tracking(wiring: Wiring, facts: Facts) -> tracking.Tracking:
    return tracking.tracking(wiring, facts, table=_TABLE.name, saved=tuple(_SAVED))


def replaced(facts: Facts) -> list[Resource]:
    """Return the removal of the table, also from a host that never had it."""
    return absent()


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the unit without its files, and no table of ours, even one that no unit has loaded.

    The package nftables stays.
    """
    return [*_TABLE.absent(needs=needs), *after(needs, ssh_ports.gone())]


def open_ports(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[tuple[str, str]]:
    """Return (protocol, port or range) of each opening.

    These are SSH as it is used and as it will be after its next restart, the relay's ports, the
    neighbours', and the site file's.
    """
    found = {("tcp", str(port)) for port in facts.ssh_ports}
    sshd = facts.commands.get("sshd")
    found |= {("tcp", port) for port in _SSHD.findall(sshd.stdout if sshd else "")}
    found |= {(use.proto, str(use.port)) for use in wiring.uses if use.public}
    found |= {(proto, str(port)) for proto, port in neighbours.open_ports}
    for entry in host.firewall.allow:
        port, _, proto = entry.partition("/")
        found.add((proto, port))
    return sorted(found, key=lambda item: (item[0], int(item[1].partition("-")[0])))


def refusals(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence for the host's own rules, and for each program that would be cut off."""
    opened = open_ports(host, wiring, facts, neighbours)
    found = [*_kernel(host, facts), *_own_rules(host, wiring, facts)]
    if paths.FIREWALL_RULES not in facts.files:  # the first time: later all else is closed
        for listener in ports.strangers(wiring, facts, neighbours, _single_ports(opened)):
            entry = f"{listener.port}/{listener.proto}"
            found.append(
                f"{ports.who(listener)} listens on {entry} of {host.name}, which the firewall would close: "
                f"add {entry} to hosts.{host.name}.firewall.allow, stop that program, or set firewall.mode "
                "to off."
            )
        found += [
            f"{use} is in use on {host.name} by {use.by}, which the firewall would close: add "
            f"{use.protocol}/ip to hosts.{host.name}.firewall.allow, remove it, or set firewall.mode to off."
            for use in tunnels.in_use(facts)
            if ("ip", str(use.protocol)) not in opened
        ]
    return found


def warnings(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return the probably unintended effects.

    These are ports whose state the host's own rules ask for and, before the first deploy, UDP
    sockets that may be servers'.
    """
    found = tracking.warnings(host, _tracking(wiring, facts))
    if paths.FIREWALL_RULES in facts.files:
        return found
    return [*found, *_maybe_cut_off(host, wiring, facts, neighbours)]


def _maybe_cut_off(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
    opened = open_ports(host, wiring, facts, neighbours)
    return [
        f"{use.by} has keys for {use} on {host.name}: if it is sent without UDP, add {use.protocol}/ip to "
        f"hosts.{host.name}.firewall.allow, for the firewall lets in only answers"
        for use in tunnels.maybe_in_use(facts)
        if ("ip", str(use.protocol)) not in opened
    ] + [
        f"{ports.who(listener)} has {listener.port}/udp open: if others speak to it first, add "
        f"{listener.port}/udp to hosts.{host.name}.firewall.allow, for the firewall lets in only answers "
        "to what it asked itself"
        for listener in ports.maybe_servers(facts, neighbours, _single_ports(opened))
    ]


def _kernel(host: Host, facts: Facts) -> list[str]:
    """Return a sentence where nft is there and the kernel has no tables for IPv4 and IPv6 together.

    That is a kernel that was built without IPv6.
    """
    said = facts.commands.get("nft_inet")
    if said is None or "not supported" not in said.stderr:
        return []
    return [
        f"The kernel of {host.name} has no nftables tables of the family inet, as when it is built without "
        f"IPv6: take the distribution's kernel, or set hosts.{host.name}.firewall.mode to off, and close its "
        "ports in the provider's firewall."
    ]


def _own_rules(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    """Return a sentence for each of the host's own sets of rules that close a port of the relay.

    It has the commands that open those ports.
    """
    passed_by = "relay" if wiring.relay_is_published else ""
    needed = [use for use in wiring.uses if use.public and use.program != passed_by]
    saved = {name: facts.commands[name].stdout for name in _SAVED if name in facts.commands}
    found = []
    for program in _SAVED if host.ipv6 else ("iptables",):
        closed = [use for use in needed if iptables.closes(saved.get(program, ""), use.proto, use.port)]
        if closed:
            accepted = [f"{program} -I INPUT -p {use.proto} --dport {use.port} -j ACCEPT" for use in closed]
            kept = "where the package iptables-persistent loads them: netfilter-persistent save"
            found.append(_closed(host, f"rules of {host.name}'s own {program} close", closed, accepted, kept))
    rules = nft.native(tracking.ruleset(facts), ours=_TABLE.name, has_iptables=any(saved.values()))
    for chain, closed in _closing_chains(rules, needed, (4, 6) if host.ipv6 else (4,)).items():
        accepted = [f"nft insert rule {chain} {use.proto} dport {use.port} accept" for use in closed]
        kept = "put these rules where that chain is loaded from, as /etc/nftables.conf"
        found.append(
            _closed(host, f"chain {chain} of {host.name}'s own nftables closes", closed, accepted, kept)
        )
    return found


def _closing_chains(
    rules: str, needed: list[Use], versions: tuple[int, ...]
) -> dict[nft.BaseChain, list[Use]]:
    found: dict[nft.BaseChain, list[Use]] = {}
    for use in needed:
        chains = [nft.closing(rules, use.proto, use.port, version=version) for version in versions]
        for chain in dict.fromkeys(chain for several in chains for chain in several):
            found.setdefault(chain, []).append(use)
    return found


def _closed(host: Host, which: str, uses: list[Use], accepted: list[str], kept: str) -> str:
    names = ", ".join(f"{use.port}/{use.proto}" for use in uses)
    return (
        f"The {which} {names}, whatever derpfleet's table lets in. Run on the host: "
        f"{' && '.join(accepted)}; and to keep that over a reboot, {kept}. Or set "
        f"hosts.{host.name}.firewall.mode to off, and see to it."
    )


def _single_ports(opened: list[tuple[str, str]]) -> set[tuple[str, int]]:
    found = set()
    for proto, entry in opened:
        first, _, last = entry.partition("-")
        found |= {(proto, port) for port in range(int(first), int(last or first) + 1)}
    return found
