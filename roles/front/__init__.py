"""What is in front of the relay. `FRONTS` is the table; the other fronts are taken away."""

from __future__ import annotations

from collections.abc import Mapping

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.choices import FrontName
from inventory.model import Host
from roles.front import direct, nginx
from roles.front.contract import Front
from roles.wiring import Wiring

FRONTS: Mapping[FrontName, Front] = {"nginx": nginx, "none": direct}
ASK: Ask = nginx.ASK


def chosen(host: Host) -> Front:
    """Return the module of the host's front."""
    return FRONTS[host.front]


def _others(host: Host) -> list[Front]:
    return [front for front in FRONTS.values() if front is not chosen(host)]


def absent_others(host: Host, wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return what takes every front away that is not the chosen one."""
    return [resource for other in _others(host) for resource in other.absent(host, wiring, facts)]


def test_units(host: Host) -> list[Resource]:
    """Return the units of the chosen front's test, and what takes those of the others away."""
    return [*chosen(host).test_units(), *(resource for other in _others(host) for resource in other.absent_test_units())]


def refusals(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    """Return what stands in the way of the chosen front, and of taking the others away."""
    gone = [sentence for other in _others(host) if other.absent(host, wiring, facts) for sentence in other.absence_refusals(host, facts)]
    return [*gone, *chosen(host).refusals(host, facts)]
