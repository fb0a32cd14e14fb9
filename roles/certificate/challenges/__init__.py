"""The ways to show an ACME server that names are ours. `MODULES` is the table."""

from __future__ import annotations

from collections.abc import Mapping

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.choices import ChallengeName, source_of
from inventory.model import Host
from roles import paths
from roles.certificate.challenges import dns, http, standalone
from roles.certificate.challenges.contract import Answers
from roles.contract import Challenge

MODULES: Mapping[ChallengeName, Answers] = {"http": http, "dns": dns, "standalone": standalone}
ASK = Ask(files=(paths.DNS_CREDENTIALS,))  # a folder: its files are not read


def challenge(host: Host, by_front: Challenge) -> Challenge:
    """Return how challenges are answered. `by_front`: how the front does it."""
    return MODULES[host.certificate.challenge].challenge(host, by_front)


def resources(host: Host, facts: Facts, ship: Shipment) -> list[Resource]:
    """Return what the orders need, and the removal of what other challenges have left."""
    chosen = MODULES[host.certificate.challenge] if source_of(host).is_acme else None
    others = [gone for module in MODULES.values() if module is not chosen for gone in module.absent()]
    left = [gone for gone in others if gone.name in facts.files]
    return [*(chosen.resources(host, ship) if chosen else []), *left]


def absent() -> list[Resource]:
    """Return the removal of all that any challenge may ever have put on a host."""
    return [gone for module in MODULES.values() for gone in module.absent()]
