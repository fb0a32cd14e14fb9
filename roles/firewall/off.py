"""No firewall: nothing is closed, and nothing is touched."""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host

ASK = Ask()


def resources(host: Host, facts: Facts) -> list[Resource]:
    """Return nothing, as the other guards' `absent` is all that is wanted."""
    return []


def absent() -> list[Resource]:
    """Return nothing, as this mode leaves nothing on a host."""
    return []


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: it stands beside every other firewall."""
    return []


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return nothing: it closes no port."""
    return []
