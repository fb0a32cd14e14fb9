"""Where a host's packages come from. `WAYS` is the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.package_source import sourced
from engine.resource import Package, Resource
from inventory.choices import PackagesFromName
from inventory.model import Host
from roles.packages import from_controller, from_host
from roles.packages.contract import PackagesFrom
from roles.packages.from_controller import installed as installed

WAYS: Mapping[PackagesFromName, PackagesFrom] = {"host": from_host, "controller": from_controller}


def chosen(host: Host) -> PackagesFrom:
    """Return the module of the site file's choice."""
    return WAYS[host.packages.source]


def ask(host: Host) -> Ask:
    """Return the questions of the chosen way."""
    return chosen(host).ASK


def names(resources: Sequence[Resource]) -> list[str]:
    """Return the packages of these resources, without those that only some hosts have to have."""
    found = [resource for resource in resources if isinstance(resource, Package)]
    return [package.package for package in found if not package.creates]


def to_bring(host: Host, facts: Facts, resources: Sequence[Resource]) -> list[str]:
    """Return the packages that the controller has to bring for these resources."""
    return chosen(host).to_bring(facts, names(resources))


def with_source(host: Host, facts: Facts, ship: Shipment, resources: list[Resource]) -> list[Resource]:
    """Return the resources, of which those with packages get them from the chosen place."""
    source = chosen(host).source(host, facts, ship)
    return sourced(source, resources) if source else resources
