"""No certificate of ours: the front in front of the relay has one, and renews it."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host, Site
from roles.certificate import own, program, renewal
from roles.contract import Challenge, nothing

ASK_ABSENT = Ask()
ask, orders, refusals = own.ask, own.orders, own.refusals
replaced = absent = nothing  # nothing is put there


def files(host: Host) -> tuple[str, str]:
    """Return no paths: there are no files that we know."""
    return "", ""


def ready(host: Host) -> tuple[str, ...]:
    """Return nothing to wait for."""
    return ()


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return the removal of a renewal and its program, which another source may have left.

    A certificate of certbot's stays, as after a change to any other source.
    """
    return [*renewal.absent(), *program.absent()]
