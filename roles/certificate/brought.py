"""A certificate that the controller brings along."""

from __future__ import annotations

from pathlib import Path

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import File, Resource
from inventory.model import Host, Site
from roles.certificate import own, renewal
from roles.contract import Challenge

ASK_ABSENT = Ask()
ask, files, orders, refusals = own.ask, own.files, own.orders, own.refusals
replaced, absent = own.replaced, own.absent


def ready(host: Host) -> tuple[str, ...]:
    """Return the ids of both files."""
    return tuple(f"file:{path}" for path in files(host))


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return both files. No program renews them.

    They belong together, and no host keeps a former key. So a rollback leaves both.
    """
    fullchain, key = files(host)
    chain, reference = host.certificate.fullchain, host.certificate.key
    assert chain and reference  # noqa: S101 - inventory.certificate_rules refuses a certificate without them
    return [
        *own.folders(host),
        File(path=fullchain, content=Path(site.path).parent / Path(chain).expanduser(), kept=False),
        File(path=key, content=ship.secrets[reference], mode="0600", secret=True),
        *renewal.off(),
    ]
