"""The contract of the sources of certificates. A source is a module of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host, Site
from roles.contract import Challenge

OBTAINED = "command:certificate"
"""The id of the command that puts a certificate there, where a command does."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """The settings of certbot's orders on the host, as files/lineage.py reads them.

    `account`: the key_id of an external account, and file, certbot's file with its key; or None.
    `certbot`: the folder of the shipped one, or None for the distribution's. `ca`: the file of the
    CA that vouches for the ACME server, or None. `authenticator`: certbot's arguments.
    `names`: those of the certificate. `profile`: the preferred one, or None for a certbot that may
    not know profiles. `environment`: certbot's variables. `limits`: as files/ledger.py has them.
    `stops`: the unit that is stopped for an order, as files/pause.py does it, or None.
    """

    server: str
    account: Mapping[str, str] | None
    contact: str | None
    ca: str | None
    certbot: str | None
    authenticator: tuple[str, ...]
    names: tuple[str, ...]
    profile: str | None
    environment: Mapping[str, str]
    limits: Mapping[str, tuple[int, int]]
    stops: str | None


class Source(Protocol):
    """One way to come by a certificate."""

    ASK_ABSENT: Ask  # what `absent` asks

    def ask(self, host: Host) -> Ask:
        """Return the source's questions."""

    def files(self, host: Host) -> tuple[str, str]:
        """Return where chain and key are on the host."""

    def ready(self, host: Host) -> tuple[str, ...]:
        """Return the ids that have put chain and key there."""

    def orders(self, host: Host, challenge: Challenge) -> Orders | None:
        """Return the orders that the host makes, or None when it makes none."""

    def resources(
        self, host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
    ) -> list[Resource]:
        """Return the resources that put chain and key there, and renew them."""

    def replaced(self) -> list[Resource]:
        """Return the removal of its keys and programs from a host that has another source now.

        certbot's certificates stay: a way back costs no order.
        """

    def absent(self, facts: Facts) -> list[Resource]:
        """Return the removal of all that `resources` may ever have put on a host."""

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return the reasons against this source, as sentences that say what to do."""


def files_in(folder: str, host: Host) -> tuple[str, str]:
    """Return where chain and key are in a folder that has a folder for each name."""
    return f"{folder}/{host.domain}/fullchain.pem", f"{folder}/{host.domain}/privkey.pem"
