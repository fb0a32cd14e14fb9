"""Compile a relay host: join the roles, which do not know each other. Each gets what it needs of the others as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from posixpath import dirname

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Group, Resource, Service
from inventory.model import Host, Site
from roles import base, certificate, firewall, front, paths, relay
from roles.contract import Challenge, ServedBy
from roles.wiring import Wiring, wire

ROLES: Mapping[str, str] = {
    "base": "roles/base.py",
    "firewall": "roles/firewall/",
    "relay": "roles/relay/",
    "nginx": "roles/front/",
    "certificate": "roles/certificate/",
    "front": "roles/front/",
}
"""Every role, with the place of its code, in the order of their resources, except that needs come first."""


def compile_host(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    """Return the desired state of a relay host."""
    found = [replace(resource, role=role) for role, resources in _by_role(host, site, facts, ship) for resource in resources]
    ids = {resource.id for resource in found}
    return [replace(resource, needs=(*resource.needs, *_implied(resource, ids))) for resource in found]


def _by_role(host: Host, site: Site, facts: Facts, ship: Shipment) -> Iterable[tuple[str, list[Resource]]]:
    wiring, chosen, runner = wire(host), front.chosen(host), relay.runner_of(host)
    former = front.absent_others(host, wiring, facts)
    free = tuple(resource.id for resource in former if isinstance(resource, Service))
    yield "base", base.resources(host, site, facts, ship)
    yield "firewall", firewall.resources(host, site, facts, ship)
    yield (
        "relay",
        relay.resources(
            host,
            site,
            wiring,
            facts,
            ship,
            listens_after=(certificate.COPIED, *free) if wiring.relay_has_tls else (),
            front_at=chosen.reached_at(facts, wiring.public.port),
        ),
    )
    yield "nginx", [*former, *chosen.http_resources(host, facts)]
    yield "certificate", certificate.resources(host, site, facts, ship, _served_by(host, wiring, free))
    served = chosen.https_resources(host, facts, certificate.issued(host), runner.RUNNING)
    yield "front", [*served, certificate.served(served[-1].id if served else runner.RUNNING)]


def _served_by(host: Host, wiring: Wiring, free: tuple[str, ...]) -> ServedBy:
    """Return who serves the certificate. `free`: the ids after which the ports are free of former fronts."""
    chosen, runner = front.chosen(host), relay.runner_of(host)
    challenge = chosen.challenge(host)
    return ServedBy(
        challenge=Challenge(challenge.authenticator, needs=(*challenge.needs, *free)),
        reload=runner.RELOAD if wiring.relay_has_tls else chosen.RELOAD,
        test=chosen.TEST,
        units=tuple(front.test_units(host)),
        withdrawal=runner.WITHDRAWN if wiring.relay_has_tls else None,  # a front goes on serving the certificate
        by_relay=wiring.relay_has_tls,
    )


def _implied(resource: Resource, ids: set[str]) -> list[str]:
    """Return the needs that roles do not state: a path needs its directory, its owner and group, and a service its unit file."""
    owner, group = getattr(resource, "owner", ""), getattr(resource, "group", "")
    wanted = [f"user:{owner}", f"group:{group}"] if not isinstance(resource, Group) else []
    if isinstance(resource, Service):
        wanted.append(f"file:{paths.SYSTEMD}/{resource.unit}")
    elif hasattr(resource, "path") and not isinstance(resource, Absent):
        wanted.append(f"directory:{dirname(resource.path)}")
    return [name for name in wanted if name in ids and name not in resource.needs]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return what stands in the way, found before anything is changed: full sentences that say what to do."""
    wiring = wire(host)
    return [
        *base.refusals(host, site, facts),
        *firewall.refusals(host, site, facts),
        *relay.refusals(host, site, wiring, facts),
        *front.refusals(host, wiring, facts),
        *certificate.refusals(host, facts),
    ]


def warnings(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return sentences about settings that are probably unintended, each with the change to make. They do not stop the deploy."""
    return [*firewall.warnings(host, site, facts), *relay.warnings(host, site)]


def ask(host: Host, site: Site) -> Ask:
    """Return what the roles want to know of a relay host."""
    files: list[str] = []
    commands: dict[str, tuple[str, ...]] = {}
    for one in (base.ASK, firewall.ASK, relay.ASK, front.ASK, certificate.ASK):
        files += [name for name in one.files if name not in files]
        commands.update(one.commands)
    return Ask(files=tuple(files), commands=commands)
