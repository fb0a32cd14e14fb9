"""A list of node keys, which the relay reads again when it changes."""

from __future__ import annotations

from pathlib import Path

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, File, Resource
from inventory.model import Host, Site
from roles import paths
from roles.contract import nothing
from roles.relay.contract import Admitting

KNOWN_BY: tuple[str, ...] = ()
# The list is checked with the site file.
refusals = warnings = nothing


def admitting(host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
    """Return the file, from the site file or from the file beside it."""
    listed = "".join(f"{key}\n" for key in host.relay.keys).encode()
    content = Path(host.relay.keys_file) if host.relay.keys_file else listed
    file = File(path=paths.ALLOWED_KEYS, content=content, mode="0640", group=paths.USER)
    return Admitting(flags=(("-allow-file", file.path),), resources=(file,))


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the file."""
    return [Absent(path=paths.ALLOWED_KEYS, needs=needs)]


def ask(host: Host, site: Site) -> Ask:
    """Return no question."""
    return Ask()


def inquiry(host: Host, site: Site, key: str) -> None:
    """Return None: the relay asks nobody, so its refusal of a stranger proves the list."""
