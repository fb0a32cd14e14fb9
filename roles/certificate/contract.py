"""The contract of the sources of certificates. A source is a module of this folder."""

from __future__ import annotations

from typing import Protocol

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Directory, Resource
from inventory.model import Host, Site
from roles import paths
from roles.contract import Challenge

OBTAINED = "command:certificate"
"""The id of the command that puts a certificate there, where a command does."""
OWN_FOLDER = f"{paths.ETC}/certificates"


class Source(Protocol):
    """One way to come by a certificate."""

    ASK: Ask
    FOLDER: str  # where the hosts' folders with chain and key are

    def resources(
        self, host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
    ) -> list[Resource]:
        """Return the resources that put chain and key there, and renew them."""

    def absent(self, facts: Facts) -> list[Resource]:
        """Return the removal of all that `resources` may ever have put on a host."""

    def ready(self, host: Host) -> tuple[str, ...]:
        """Return the ids that have put chain and key there."""

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return the reasons against this source, as sentences that say what to do."""


def files_in(folder: str, host: Host) -> tuple[str, str]:
    """Return where chain and key are, for a source with this folder."""
    return f"{folder}/{host.domain}/fullchain.pem", f"{folder}/{host.domain}/privkey.pem"


def own_folder(host: Host) -> list[Resource]:
    """Return the folder for a certificate that is not certbot's."""
    folders = (OWN_FOLDER, f"{OWN_FOLDER}/{host.domain}")
    return [Directory(path=path, mode="0700") for path in folders]


def absent_own_folder() -> list[Resource]:
    """Return the removal of the folder, with the certificates of every name that the host had."""
    return [Absent(path=OWN_FOLDER)]
