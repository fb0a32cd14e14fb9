"""The host's firewall. `MODES` is the table of its modes. The chosen guard replaces the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.facts import Ask, Facts, asked
from engine.resource import Resource
from inventory.choices import FirewallModeName, firewall_of
from inventory.model import Host
from roles.contract import Caller, Neighbours
from roles.firewall import backend, nftables, off, own
from roles.firewall.contract import Guard
from roles.firewall.own import HostsOwn
from roles.wiring import Wiring

MODES: Mapping[FirewallModeName, tuple[Guard, ...]] = {
    "enforce": (nftables,),
    **{firewall.name: (firewall,) for firewall in own.FIREWALLS},
    "auto": (*own.FIREWALLS, nftables),
    "off": (off,),
}
"""The candidates of each mode. The first that is in charge of the host is chosen, else the last."""
_GUARDS: tuple[Guard, ...] = (nftables, *own.FIREWALLS, off)


def chosen(host: Host, facts: Facts) -> Guard:
    """Return the guard that the host's mode and facts choose."""
    candidates = MODES[host.firewall.mode]
    return next((guard for guard in _in_charge(facts) if guard in candidates), candidates[-1])


def _in_charge(facts: Facts) -> list[HostsOwn]:
    return [guard for guard in own.FIREWALLS if guard.is_in_charge(facts)]


def resources(
    host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours, callers: Sequence[Caller] = ()
) -> list[Resource]:
    """Return the chosen guard, and the removal of the others.

    `callers`: who alone may connect to the relay from the host itself; (): everyone.
    """
    guard = chosen(host, facts)
    others = [other for other in _GUARDS if other is not guard]
    gone = [resource for other in others for resource in other.replaced(facts)]
    if callers and firewall_of(host).closes:
        behind = backend.resources(wiring, callers)
    else:
        behind = backend.replaced(facts)
    # Two tables share a package.
    return list(dict.fromkeys([*gone, *guard.resources(host, wiring, facts, neighbours), *behind]))


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of every guard, after `needs`."""
    return [*backend.absent(needs=needs), *(gone for guard in _GUARDS for gone in guard.absent(needs=needs))]


def ask(host: Host) -> Ask:
    """Return the questions of the mode's guards, and whether another firewall is in charge.

    A guard that closes nothing may be beside any other. The agent's notes name what to remove.
    """
    beside = own.FIREWALLS if firewall_of(host).closes else ()
    return asked(own.NOTES, backend.ASK, *(guard.ASK for guard in (*MODES[host.firewall.mode], *beside)))


def refusals(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence for each firewall beside the chosen guard, or the reasons against that."""
    guard = chosen(host, facts)
    beside = [other for other in _in_charge(facts) if other is not guard] if firewall_of(host).closes else []
    return [_beside(host, other) for other in beside] or guard.refusals(host, wiring, facts, neighbours)


def _beside(host: Host, other: HostsOwn) -> str:
    return (
        f"{other.name} is active on {host.name}, and two firewalls would close each other's ports. "
        f"Either keep {other.name} alone: set hosts.{host.name}.firewall.mode to {other.name}, and derpfleet "
        f"opens its ports there. Or run on the host: {other.stop}."
    )


def warnings(host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return the probably unintended effects of the chosen guard."""
    return chosen(host, facts).warnings(host, wiring, facts, neighbours)
