"""Compile a relay host: join the roles, which do not know each other.

Each role gets the values of the others that it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, asked
from engine.resource import Container, Resource, Service
from inventory.model import Host, Site
from roles import base, certificate, distributions, docker, firewall, front, packages, relay, selinux
from roles.contract import Neighbours, ServedBy
from roles.wiring import Wiring, wire

ROLES: Mapping[str, str] = {
    "base": "roles/base.py",
    "selinux": "roles/selinux.py",
    "firewall": "roles/firewall/",
    "relay": "roles/relay/",
    "nginx": "roles/front/",
    "certificate": "roles/certificate/",
}
"""Every role with the place of its code, in the order of their resources (but needs come first)."""


def compile_host(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    """Return the desired state of a relay host. `refusals` has to be empty."""
    resources = _joined(_by_role(host, site, distributions.for_programs(facts), ship))
    return packages.with_source(host, facts, ship, resources)


def compile_absent(host: Host, facts: Facts) -> list[Resource]:
    """Return the desired state of a host that was a relay host: nothing of it is left.

    It covers every variant of each role, since the site file may have changed since the last
    deploy. Packages stay. `facts` have to answer `ask_absent`, and `absence_refusals` has to be
    empty.
    """
    return _joined(_absent_by_role(host, facts))


def _joined(by_role: Iterable[tuple[str, list[Resource]]]) -> list[Resource]:
    """Return the resources of all roles, with role and implied needs."""
    found = [replace(resource, role=role) for role, resources in by_role for resource in resources]
    ids = {resource.id for resource in found}
    return [_with_implied_needs(resource, ids) for resource in found]


def _with_implied_needs(resource: Resource, ids: set[str]) -> Resource:
    """Return the resource with the needs that its role does not have to state."""
    more = (name for name in resource.implied() if name in ids and name not in resource.needs)
    return replace(resource, needs=(*resource.needs, *more))


def _by_role(host: Host, site: Site, facts: Facts, ship: Shipment) -> Iterable[tuple[str, list[Resource]]]:
    wiring, chosen, runner = wire(host), front.chosen(host), relay.chosen_runner(host)
    former = front.replaced_others(host, wiring, facts)
    free = tuple(resource.id for resource in former if isinstance(resource, Service))
    yield "base", base.resources(facts)
    yield "selinux", selinux.resources(wiring, facts)
    yield "firewall", firewall.resources(host, wiring, facts, neighbours(facts), chosen.callers(facts))
    yield (
        "relay",
        relay.resources(
            host,
            site,
            wiring,
            facts,
            ship,
            listens_after=(certificate.COPIED, *free) if wiring.relay_has_tls else (),
        ),
    )
    yield "nginx", [*former, *chosen.http_resources(host, facts, certificate.issued(host))]
    yield "certificate", certificate.resources(host, site, facts, ship, _served_by(host, wiring, facts, free))
    served = chosen.https_resources(host, facts, certificate.issued(host), runner.RUNNING)
    yield "nginx", served
    last = served[-1].id if served else runner.RUNNING
    # The proof judges a front of others: nothing on the host can tell whether it has our lines.
    shown = [] if wiring.front_is_others else [certificate.served(last)]
    needs = (shown[-1].id if shown else last,)
    gone = certificate.replaced_others(host, facts, copied=wiring.relay_has_tls, needs=needs)
    yield "certificate", [*shown, *gone]


def _absent_by_role(host: Host, facts: Facts) -> Iterable[tuple[str, list[Resource]]]:
    relays = relay.absent()
    stopped = tuple(resource.id for resource in relays if isinstance(resource, Service | Container))
    fronts = front.absent(facts, needs=stopped)
    unused = (*stopped, *(resource.id for resource in fronts if isinstance(resource, Service)))
    yield "relay", relays
    yield "nginx", fronts
    yield "certificate", certificate.absent(facts, needs=unused)
    yield "relay", docker.absent(host, facts, needs=stopped)
    yield "firewall", firewall.absent(needs=stopped)
    yield "selinux", selinux.absent(facts, needs=unused)
    yield "base", base.absent(needs=unused)


def _served_by(host: Host, wiring: Wiring, facts: Facts, free: tuple[str, ...]) -> ServedBy:
    """Return the program that serves the certificate.

    `free`: the ids after which the ports are free of former fronts.
    """
    chosen, runner = front.chosen(host), relay.chosen_runner(host)
    challenge = chosen.challenge(host, facts)
    return ServedBy(
        at=wiring.reached_at,
        challenge=replace(challenge, needs=(*challenge.needs, *free)),
        reload=runner.RELOAD if wiring.relay_has_tls else chosen.RELOAD,
        test=chosen.TEST,
        units=tuple(front.test_units(host)),
        # A front still serves the certificate after a withdrawal.
        withdrawal=relay.WITHDRAWAL if wiring.relay_has_tls else None,
        by_relay=wiring.relay_has_tls,
    )


def neighbours(facts: Facts) -> Neighbours:
    """Return what fronts and relays know of the host's listeners."""
    return Neighbours(
        open_ports=front.open_ports(facts),
        shares=lambda listener, use: front.shares(listener, use, facts),
        is_ours=lambda listener: relay.is_ours(listener, facts),
    )


def other_sites(facts: Facts) -> list[str]:
    """Return the URLs of other sites that a deploy may touch, and so watches."""
    return front.other_sites(facts)


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return the reasons against a deploy, as full sentences that say what to do.

    They are found before anything is changed. Of an unknown distribution only that is said.
    """
    of_base = base.refusals(host, facts)
    if distributions.known(facts) is None:
        return of_base
    facts = distributions.for_programs(facts)
    wiring, beside = wire(host), neighbours(facts)
    return [
        *of_base,
        *packages.chosen(host).refusals(host, facts),
        *firewall.refusals(host, wiring, facts, beside),
        *relay.refusals(host, site, wiring, facts, beside),
        *front.refusals(host, wiring, facts),
        *certificate.chosen(host).refusals(host, facts),
    ]


def warnings(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return sentences about settings that are probably unintended, each with the change to make.

    They do not stop the deploy. Of an unknown distribution `refusals` says all.
    """
    if distributions.known(facts) is None:
        return []
    return [
        *distributions.warnings(host.name, facts),
        *base.warnings(host, facts),
        *firewall.warnings(host, wire(host), facts, neighbours(facts)),
        *relay.warnings(host, site, facts),
        *front.chosen(host).warnings(host, facts),
    ]


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return the reasons against `compile_absent`, as full sentences that say what to do."""
    if distributions.known(facts) is None:
        return distributions.refusals(host.name, facts)
    return [*front.absence_refusals(host, facts), *certificate.absence_refusals(host, facts)]


def in_service(facts: Facts) -> list[str]:
    """Return the ports on which a relay of ours listens, as `443/tcp`.

    `facts` have to answer `ask_absent`.
    """
    found = {(one.port, one.proto) for one in facts.listening if relay.is_ours(one, facts)}
    return [f"{port}/{proto}" for port, proto in sorted(found)]


def ask(host: Host, site: Site) -> Ask:
    """Return the questions of the chosen variants.

    nginx's other sites are asked for on every host: the front that a host had is removed beside
    them, their ports stay open, and their listeners are not in the way.
    """
    of_variants = (firewall.ask(host), relay.ask(host, site), front.ask(), certificate.ask(host))
    return asked(base.ASK, selinux.ASK, packages.ask(host), *of_variants)


def ask_absent() -> Ask:
    """Return the questions of `compile_absent` and `in_service`, about every variant."""
    of_variants = (front.ask_absent(), certificate.ask_absent(), docker.ASK)
    return asked(relay.ASK_PORTS, selinux.ASK, *of_variants)
