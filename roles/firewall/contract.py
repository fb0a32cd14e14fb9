"""What each mode of the firewall provides. A mode is a module of this folder."""

from __future__ import annotations

from typing import Protocol

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host


class Guard(Protocol):
    """One way to guard a host's ports."""

    ASK: Ask

    def resources(self, host: Host, facts: Facts) -> list[Resource]:
        """Return what makes the guard be there."""

    def absent(self) -> list[Resource]:
        """Return what takes the guard away."""

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return what stands in the way of this guard, as sentences that say what to do."""

    def warnings(self, host: Host, facts: Facts) -> list[str]:
        """Return what is probably unintended, as sentences that say what to change."""
