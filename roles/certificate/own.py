"""The folder of certificates that are not certbot's."""

from __future__ import annotations

from engine.facts import Facts
from engine.resource import Absent, Directory, Resource
from inventory.model import Host
from roles import paths
from roles.certificate.contract import files_in

_FOLDER = f"{paths.ETC}/certificates"


def files(host: Host) -> tuple[str, str]:
    """Return where chain and key are."""
    return files_in(_FOLDER, host)


def folders(host: Host) -> list[Resource]:
    """Return the folders of chain and key."""
    return [Directory(path=path, mode="0700") for path in (_FOLDER, f"{_FOLDER}/{host.domain}")]


def absent(facts: Facts) -> list[Resource]:
    """Return the removal of the folder, with the certificates of every name that the host had."""
    return [Absent(path=_FOLDER)]
