"""A list of node keys, which the relay reads again when it changes."""

from __future__ import annotations

from pathlib import Path

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, File, Resource
from inventory.model import Host, Site
from roles import paths

KNOWN_BY = ""


def flags(host: Host, site: Site) -> tuple[tuple[str, ...], ...]:
    """Return the file."""
    return (("-allow-file", paths.ALLOWED_KEYS),)


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> tuple[Resource, ...]:
    """Return the file, from the site file or from the file beside it."""
    listed = "".join(f"{key}\n" for key in host.relay.keys).encode()
    content = Path(host.relay.keys_file) if host.relay.keys_file else listed
    return (File(path=paths.ALLOWED_KEYS, content=content, mode="0640", group=paths.USER),)


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the file."""
    return [Absent(path=paths.ALLOWED_KEYS, needs=needs)]


def ask(host: Host, site: Site) -> Ask:
    """Return nothing."""
    return Ask()


def inquiry(host: Host, site: Site, key: str) -> None:
    """Return nothing: the relay asks nobody, so its refusal of a stranger proves the list."""


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: the list is checked with the site file."""
    return []


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return nothing."""
    return []
