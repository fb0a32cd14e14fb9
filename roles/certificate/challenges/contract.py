"""The contract of the challenges. A challenge is a module of this folder."""

from __future__ import annotations

from typing import Protocol

from artefacts.shipment import Shipment
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Challenge


class Answers(Protocol):
    """One way to show an ACME server that names are ours."""

    def challenge(self, host: Host, by_front: Challenge) -> Challenge:
        """Return how challenges are answered. `by_front`: how the front, or certbot, does it."""

    def resources(self, host: Host, ship: Shipment) -> list[Resource]:
        """Return what an order needs."""

    def absent(self) -> list[Resource]:
        """Return the removal of all that `resources` may ever have put on a host."""
