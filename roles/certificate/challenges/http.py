"""The challenge on the host's http port: the front or certbot answers it."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Challenge


def challenge(host: Host, by_front: Challenge) -> Challenge:
    """Return the front's way."""
    return by_front


def resources(host: Host, ship: Shipment) -> list[Resource]:
    """Return nothing: the front brings its own."""
    return []


def absent() -> list[Resource]:
    """Return nothing, as there is nothing to remove."""
    return []
