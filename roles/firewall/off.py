"""No firewall: nothing is closed, and nothing is touched."""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Neighbours

ASK = Ask()


def resources(host: Host, facts: Facts, neighbours: Neighbours) -> list[Resource]:
    """Return nothing: the other guards are replaced, and that is all."""
    return []


def replaced(facts: Facts) -> list[Resource]:
    """Return nothing, as this mode leaves nothing on a host."""
    return []


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return nothing, as this mode leaves nothing on a host."""
    return []


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return nothing: it can be used beside every other firewall."""
    return []


def warnings(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return nothing: it closes no port."""
    return []
