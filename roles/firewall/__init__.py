"""The host's firewall. `MODES` is the table of its modes: the chosen one is there, and the others are gone."""

from __future__ import annotations

from collections.abc import Mapping

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.choices import FirewallModeName
from inventory.model import Host, Site
from roles.firewall import nftables, off
from roles.firewall.contract import Guard

MODES: Mapping[FirewallModeName, Guard] = {"enforce": nftables, "off": off}
ASK: Ask = nftables.ASK


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    """Return the chosen guard, and what takes the others away."""
    chosen = MODES[host.firewall.mode]
    gone = [resource for other in MODES.values() if other is not chosen for resource in other.absent()]
    return [*gone, *chosen.resources(host, facts)]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return what stands in the way of the chosen guard."""
    return MODES[host.firewall.mode].refusals(host, facts)


def warnings(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return what is probably unintended with the chosen guard."""
    return MODES[host.firewall.mode].warnings(host, facts)
