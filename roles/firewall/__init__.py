"""The host's firewall. `MODES` is the table of its modes. The chosen guard replaces the others."""

from __future__ import annotations

from collections.abc import Mapping

from engine.facts import Ask, Facts, asked
from engine.resource import Resource
from inventory.choices import FirewallModeName, firewall_of
from inventory.model import Host
from roles.contract import Caller, Neighbours
from roles.firewall import backend, firewalld, nftables, off, own, ufw
from roles.firewall.contract import Guard, HostsOwn
from roles.wiring import wire

_HOSTS_OWN: tuple[HostsOwn, ...] = (ufw, firewalld)
MODES: Mapping[FirewallModeName, tuple[Guard, ...]] = {
    "enforce": (nftables,),
    "ufw": (ufw,),
    "firewalld": (firewalld,),
    "auto": (*_HOSTS_OWN, nftables),
    "off": (off,),
}
"""The candidates of each mode. The first that is in charge of the host is chosen, else the last."""
_GUARDS: tuple[Guard, ...] = (nftables, *_HOSTS_OWN, off)


def chosen(host: Host, facts: Facts) -> Guard:
    """Return the guard that the host's mode and facts choose."""
    candidates = MODES[host.firewall.mode]
    return next((guard for guard in _in_charge(facts) if guard in candidates), candidates[-1])


def _in_charge(facts: Facts) -> list[HostsOwn]:
    return [guard for guard in _HOSTS_OWN if guard.is_in_charge(facts)]


def resources(
    host: Host, facts: Facts, neighbours: Neighbours, caller: Caller | None = None
) -> list[Resource]:
    """Return the chosen guard, and the removal of the others.

    `caller`: who alone may connect to the relay from the host itself; None: everyone.
    """
    guard = chosen(host, facts)
    others = [other for other in _GUARDS if other is not guard]
    gone = [resource for other in others for resource in other.replaced(facts)]
    if caller is not None and firewall_of(host).closes:
        behind = backend.resources(wire(host), caller)
    else:
        behind = backend.replaced(facts)
    # Two tables share a package.
    return list(dict.fromkeys([*gone, *guard.resources(host, facts, neighbours), *behind]))


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of every guard, after `needs`."""
    return [*backend.absent(needs=needs), *(gone for guard in _GUARDS for gone in guard.absent(needs=needs))]


def ask(host: Host) -> Ask:
    """Return the questions of the mode's guards, and whether another firewall is in charge.

    A guard that closes nothing may be beside any other. The agent's notes name what to remove.
    """
    beside = _HOSTS_OWN if firewall_of(host).closes else ()
    return asked(own.NOTES, backend.ASK, *(guard.ASK for guard in (*MODES[host.firewall.mode], *beside)))


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence for each firewall beside the chosen guard, or the reasons against that."""
    guard = chosen(host, facts)
    beside = [other for other in _in_charge(facts) if other is not guard] if firewall_of(host).closes else []
    return [_beside(host, other) for other in beside] or guard.refusals(host, facts, neighbours)


def _beside(host: Host, other: HostsOwn) -> str:
    return (
        f"{other.NAME} is active on {host.name}, and two firewalls would close each other's ports. "
        f"Either keep {other.NAME} alone: set hosts.{host.name}.firewall.mode to {other.NAME}, and derpfleet "
        f"opens its ports there. Or run on the host: {other.STOP}."
    )


def warnings(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return the probably unintended effects of the chosen guard."""
    return chosen(host, facts).warnings(host, facts, neighbours)
