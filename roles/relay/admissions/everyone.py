"""No judge: anyone may use the relay."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from inventory.model import Host, Site
from roles.contract import nothing
from roles.relay.contract import Admitting

KNOWN_BY: tuple[str, ...] = ()
absent = refusals = nothing


def admitting(host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
    """Return no flag: a relay without a judge admits everyone."""
    return Admitting()


def ask(host: Host, site: Site) -> Ask:
    """Return no question."""
    return Ask()


def inquiry(host: Host, site: Site, key: str) -> None:
    """Return None: there is nobody to ask."""


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if nobody has said that this is meant."""
    if host.relay.open or host.relay.admission:
        return []
    return [
        "the relay is open to everybody who finds it, as there is no headscale in the site to ask who may "
        f"use it: set hosts.{host.name}.relay.verify_client_url to one that knows, or "
        f"hosts.{host.name}.relay.open to true, if that is meant"
    ]
