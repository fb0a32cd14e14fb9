"""A certificate that the controller brings along."""

from __future__ import annotations

from pathlib import Path

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import File, Resource
from inventory.model import Host, Site
from roles.certificate import renewal
from roles.certificate.contract import OWN_FOLDER, absent_own_folder, files_in, own_folder
from roles.contract import Challenge

ASK = Ask()
FOLDER = OWN_FOLDER


def ready(host: Host) -> tuple[str, ...]:
    """Return the ids of both files."""
    return tuple(f"file:{path}" for path in files_in(FOLDER, host))


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: files suit every host."""
    return []


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return both files. No program renews them."""
    fullchain, key = files_in(FOLDER, host)
    chain, reference = host.certificate.fullchain, host.certificate.key
    assert chain and reference  # noqa: S101 - inventory.rules refuses a certificate without them
    return [
        *own_folder(host),
        File(path=fullchain, content=Path(site.path).parent / Path(chain).expanduser()),
        File(path=key, content=ship.secrets[reference], mode="0600", secret=True),
        *renewal.off(),
    ]


def absent(facts: Facts) -> list[Resource]:
    """Return the removal of the files with their folder."""
    return absent_own_folder()
