"""The contract of the firewall's modes. A mode is a module of this folder."""

from __future__ import annotations

from typing import Protocol

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Neighbours
from roles.wiring import Wiring


class Guard(Protocol):
    """One way to guard a host's ports."""

    @property
    def ASK(self) -> Ask:
        """The questions about the host."""

    def resources(self, host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[Resource]:
        """Return the resources of the guard."""

    def replaced(self, facts: Facts) -> list[Resource]:
        """Return what a host with another guard has in place of this one."""

    def absent(self, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return the removal of all that `resources` may ever have put on a host, after `needs`."""

    def refusals(self, host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
        """Return the reasons against this guard, as sentences that say what to do."""

    def warnings(self, host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
        """Return the probably unintended effects, as sentences that say what to change."""
