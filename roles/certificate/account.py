"""The key of an external account at the ACME server, which certbot's first order there proves."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Directory, File, Resource
from inventory.acme import Account
from inventory.choices import source_of
from inventory.model import Host
from roles import paths

_FILE = f"{paths.ACME_ACCOUNT}/certbot.ini"
_HMAC = (r"[A-Za-z0-9_-]+=*", "an HMAC key in base64url, as the ACME server shows it")
ASK = Ask(files=(paths.ACME_ACCOUNT,))  # a folder: its files are not read


def _chosen(host: Host) -> Account | None:
    return host.certificate.account if source_of(host).is_acme else None


def resources(host: Host, facts: Facts, ship: Shipment) -> list[Resource]:
    """Return the key, which only root may read, or its removal where it is no longer used."""
    account = _chosen(host)
    if account is None:
        return absent() if paths.ACME_ACCOUNT in facts.files else []
    content = ship.secrets[account.hmac].of_form(*_HMAC).within("eab-hmac-key = {}")
    folder = Directory(path=paths.ACME_ACCOUNT, mode="0700")
    return [folder, File(path=_FILE, content=content, mode="0600", secret=True)]


def needs(host: Host) -> tuple[str, ...]:
    """Return the ids that an order needs."""
    return (f"file:{_FILE}",) if _chosen(host) else ()


def settings(host: Host) -> dict[str, str] | None:
    """Return the account as files/lineage.py reads it, or None."""
    account = _chosen(host)
    return {"key_id": account.key_id, "file": _FILE} if account else None


def absent() -> list[Resource]:
    """Return the removal of the key."""
    return [Absent(path=paths.ACME_ACCOUNT)]
