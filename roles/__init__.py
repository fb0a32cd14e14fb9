"""WHAT: the desired state of hosts. Pure functions from a host, its site and its facts to resources; no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from posixpath import dirname
from typing import Protocol

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Group, Resource, Service
from inventory.model import Host, Site
from roles import base, certificate, firewall, front, nginx, paths, relay


class Role(Protocol):
    """A module of this package. It may also have `refusals` and `warnings`, both (host, site, facts) -> list[str]."""

    ASK: Ask
    __name__: str

    def resources(self, host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]: ...


# In this order, but for what needs something else first: with no front, the relay waits for its certificate.
RELAY_HOST: tuple[Role, ...] = (base, firewall, relay, nginx, certificate, front)


def compile_host(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    """The desired state of a relay host."""
    found = [
        replace(resource, role=role.__name__.rpartition(".")[2])
        for role in RELAY_HOST
        for resource in role.resources(host, site, facts, ship)
    ]
    ids = {resource.id for resource in found}
    return [replace(resource, needs=(*resource.needs, *_implied(resource, ids))) for resource in found]


def _implied(resource: Resource, ids: set[str]) -> list[str]:
    """What goes without saying: a path needs its directory, an owner has to exist, and a unit needs its file."""
    owner, group = getattr(resource, "owner", ""), getattr(resource, "group", "")
    wanted = [f"user:{owner}", f"group:{group}"] if not isinstance(resource, Group) else []
    if isinstance(resource, Service):
        wanted.append(f"file:{paths.SYSTEMD}/{resource.unit}")
    elif hasattr(resource, "path") and not isinstance(resource, Absent):
        wanted.append(f"directory:{dirname(resource.path)}")
    return [name for name in wanted if name in ids and name not in resource.needs]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    """What stands in the way, found before anything is changed: full sentences that say what to do."""
    return [sentence for role in RELAY_HOST if hasattr(role, "refusals") for sentence in role.refusals(host, site, facts)]


def warnings(host: Host, site: Site, facts: Facts) -> list[str]:
    """What is done all the same, but may not be what somebody wants: each a sentence with what to do."""
    return [sentence for role in RELAY_HOST if hasattr(role, "warnings") for sentence in role.warnings(host, site, facts)]


def ask(host: Host, site: Site) -> Ask:
    """What the roles want to know of a relay host."""
    return _union(role.ASK for role in RELAY_HOST)


def _union(asks: Iterable[Ask]) -> Ask:
    files: list[str] = []
    commands: dict[str, tuple[str, ...]] = {}
    for one in asks:
        files += [name for name in one.files if name not in files]
        commands.update(one.commands)
    return Ask(files=tuple(files), commands=commands)
