"""The host's firewall. `MODES` is the table of its modes. The chosen one replaces the others."""

from __future__ import annotations

from collections.abc import Mapping

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.choices import FirewallModeName
from inventory.model import Host
from roles.contract import Neighbours
from roles.firewall import nftables, off
from roles.firewall.contract import Guard

MODES: Mapping[FirewallModeName, Guard] = {"enforce": nftables, "off": off}


def chosen(host: Host) -> Guard:
    """Return the module of the host's mode."""
    return MODES[host.firewall.mode]


def resources(host: Host, facts: Facts, neighbours: Neighbours) -> list[Resource]:
    """Return the chosen guard, and the removal of the others."""
    guard = chosen(host)
    others = [other for other in MODES.values() if other is not guard]
    gone = [resource for other in others for resource in other.replaced()]
    return [*gone, *guard.resources(host, facts, neighbours)]


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of every guard, after `needs`."""
    return [gone for guard in MODES.values() for gone in guard.absent(needs=needs)]


def ask(host: Host) -> Ask:
    """Return the questions of the chosen guard. The removal of the others asks nothing."""
    return chosen(host).ASK


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return the reasons against the chosen guard."""
    return chosen(host).refusals(host, facts, neighbours)


def warnings(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return the probably unintended effects of the chosen guard."""
    return chosen(host).warnings(host, facts, neighbours)
