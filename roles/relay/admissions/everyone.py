"""No judge: anyone may use the relay."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host, Site

KNOWN_BY = ""


def flags(host: Host, site: Site) -> tuple[tuple[str, ...], ...]:
    """Return nothing: a relay without a judge admits everyone."""
    return ()


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> tuple[Resource, ...]:
    """Return nothing."""
    return ()


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return nothing."""
    return []


def ask(host: Host, site: Site) -> Ask:
    """Return nothing."""
    return Ask()


def inquiry(host: Host, site: Site, key: str) -> None:
    """Return nothing: there is nobody to ask."""


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing."""
    return []


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if nobody has said that this is meant."""
    if host.relay.open or host.relay.admission:
        return []
    return [
        "the relay is open to everybody who finds it, as there is no headscale in the site to ask who may "
        f"use it: set hosts.{host.name}.relay.verify_client_url to one that knows, or "
        f"hosts.{host.name}.relay.open to true, if that is meant"
    ]
