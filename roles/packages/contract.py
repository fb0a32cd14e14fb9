"""The contract of a way in which packages reach a host. Each is a module of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.package_source import PackageSource
from inventory.model import Host


class PackagesFrom(Protocol):
    """A module with these functions."""

    ASK: Ask

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return the reasons against it, as full sentences."""

    def to_bring(self, facts: Facts, names: Sequence[str]) -> list[str]:
        """Return those of the wanted packages that the controller has to bring."""

    def source(self, host: Host, facts: Facts, ship: Shipment) -> PackageSource | None:
        """Return the only source of packages; None for the host's own."""
