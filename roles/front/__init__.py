"""The program in front of the relay. `MODULES` is the table. The chosen one replaces the others."""

from __future__ import annotations

from collections.abc import Mapping

from engine.facts import Ask, Facts, Listener, asked
from engine.resource import Resource
from inventory.choices import FrontName
from inventory.model import Host
from roles.front import direct, external, nginx
from roles.front.contract import Front
from roles.front.nginx import stream
from roles.wiring import Use, Wiring

MODULES: Mapping[FrontName, Front] = {
    "nginx": nginx,
    "nginx-stream": stream,
    "direct": direct,
    "none": direct,
    "external": external,
}
_EACH = tuple(dict.fromkeys(MODULES.values()))


def chosen(host: Host) -> Front:
    """Return the module of the host's front."""
    return MODULES[host.front]


def _others(host: Host) -> list[Front]:
    return [front for front in _EACH if front is not chosen(host)]


def replaced_others(host: Host, wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return what the host has in place of every front that is not the chosen one."""
    return [gone for other in _others(host) for gone in other.replaced(wiring, facts)]


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of every front, after `needs`."""
    return [gone for front in _EACH for gone in front.absent(facts, needs=needs)]


def test_units(host: Host) -> list[Resource]:
    """Return the units of the chosen front's test, and the removal of the others' units."""
    gone = [resource for other in _others(host) for resource in other.absent_test_units()]
    return [*chosen(host).test_units(), *gone]


def shares(listener: Listener, use: Use, facts: Facts) -> bool:
    """Whether the listener is a front's program, which serves the use's port or leaves it."""
    return any(front.shares(listener, use, facts) for front in _EACH)


def open_ports(facts: Facts) -> set[tuple[str, int]]:
    """Return (protocol, port) of the other sites that the fronts' programs serve."""
    return {port for front in _EACH for port in front.open_ports(facts)}


def other_sites(facts: Facts) -> list[str]:
    """Return the URLs of those sites."""
    return [url for front in _EACH for url in front.other_sites(facts)]


def ask() -> Ask:
    """Return the questions of every front.

    The fronts that were not chosen are asked about as well: `replaced` has to know whether one of
    them is on the host, and which other sites it serves.
    """
    return asked(*(front.ASK for front in _EACH))


def ask_absent() -> Ask:
    """Return the questions of `absent`."""
    return asked(ask(), *(front.ASK_ABSENT for front in _EACH))


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return the reasons against the removal of every front."""
    return [sentence for front in _EACH for sentence in front.absence_refusals(host, facts)]


def refusals(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    """Return the reasons against the chosen front, and against the removal of the others."""
    going = [other for other in _others(host) if other.replaced(wiring, facts)]
    found = [sentence for other in going for sentence in other.absence_refusals(host, facts)]
    return [*found, *chosen(host).refusals(host, facts)]
