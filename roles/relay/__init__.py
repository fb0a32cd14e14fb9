"""The relay in one of its flavours, which share user, key and ports. `FLAVOURS` is the table; the other flavours are taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, asked
from engine.resource import Resource
from inventory.model import FlavourName, Host, Site
from roles import ports
from roles.admission import verify_url
from roles.relay import derper, key, ours
from roles.relay.contract import Flavour, Given
from roles.wiring import Wiring

FLAVOURS: Mapping[FlavourName, Flavour] = {"python": ours, "docker": derper}


def chosen(host: Host) -> Flavour:
    """Return the module of the host's flavour."""
    return FLAVOURS[host.flavour]


def ask(host: Host) -> Ask:
    """Return the questions about ports, and those of the chosen flavour.

    `docker container inspect` is among the former on every host. A relay that ran in a container
    until now still has the ports, and is not in the way of its successor.
    """
    return asked(ports.ASK, chosen(host).ASK)


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of every flavour, after `needs`. The keys go with the state of the host."""
    return [gone for flavour in FLAVOURS.values() for gone in flavour.absent(needs=needs)]


def resources(
    host: Host, site: Site, wiring: Wiring, facts: Facts, ship: Shipment, *, listens_after: tuple[str, ...], front_at: str
) -> list[Resource]:
    """Return the relay with its keys. `listens_after`, `front_at`: as in `Given`."""
    flavour, made = chosen(host), key.made(facts)
    needs = flavour.ready_to_start(host, ship)
    former = tuple(resource for other in FLAVOURS.values() if other is not flavour for resource in other.absent(needs=needs))
    given = Given(ship=ship, key=made.id, former=former, listens_after=listens_after, front_at=front_at)
    return [made, *key.of_mesh(host, site, ship), *flavour.resources(host, site, wiring, facts, given)]


def stopped() -> list[Resource]:
    """Return what keeps every flavour from listening, now and after a reboot. What is installed stays."""
    return [replace(resource, role="relay") for flavour in FLAVOURS.values() for resource in flavour.stopped()]


def ask_withdrawn(host: Host) -> Ask:
    """Return what `is_withdrawn` needs."""
    return Ask(commands={"withdrawn": chosen(host).WITHDRAWN.argv})


def is_withdrawn(host: Host, facts: Facts) -> bool:
    """Return whether the relay was taken out of service, which is another thing than being down."""
    said = facts.commands.get("withdrawn")
    return said is not None and (said.stdout + said.stderr).strip() == chosen(host).WITHDRAWN.says


def warnings(host: Host, site: Site) -> list[str]:
    """Return a sentence when the relay is open to everybody, but nobody said that it should be."""
    if verify_url(host, site) or host.relay.open:
        return []
    return [
        "the relay is open to everybody who finds it, as there is no headscale in the site to ask who may use it: set "
        f"hosts.{host.name}.relay.verify_client_url to one that knows, or hosts.{host.name}.relay.open to true, if that is meant"
    ]


def refusals(host: Host, site: Site, wiring: Wiring, facts: Facts) -> list[str]:
    """Return what stands in the way of the relay: ports that are taken, and what its flavour lacks."""
    return [*ports.taken(host, facts), *chosen(host).refusals(host, site, wiring, facts)]
