"""The folder of certificates that no ACME server gave, and the parts of such sources."""

from __future__ import annotations

import posixpath

from engine.facts import Ask, Facts
from engine.resource import Absent, Directory, Resource
from inventory.model import Host
from roles import paths
from roles.certificate.contract import Orders, files_in
from roles.contract import Challenge, nothing

_FOLDER = f"{paths.ETC}/certificates"

refusals = nothing  # every host has openssl and room for two files


def files(host: Host) -> tuple[str, str]:
    """Return where chain and key are."""
    return files_in(_FOLDER, host)


def folders(host: Host) -> list[Resource]:
    """Return the folders of chain and key."""
    return [Directory(path=path, mode="0700") for path in (_FOLDER, f"{_FOLDER}/{host.domain}")]


def of_former_names(host: Host, facts: Facts) -> list[Resource]:
    """Return the removal of chain and key of every other name that the host had."""
    there = sorted(path for path in facts.files if posixpath.dirname(path) == _FOLDER)
    return [Absent(path=path) for path in there if path != f"{_FOLDER}/{host.domain}"]


def replaced() -> list[Resource]:
    """Return the removal of the folder, with the certificates of every name that the host had."""
    return [Absent(path=_FOLDER)]


def absent(facts: Facts) -> list[Resource]:
    """Return the same."""
    return replaced()


def orders(host: Host, challenge: Challenge) -> Orders | None:
    """Return None: the host orders nothing."""
    return None


def ask(host: Host) -> Ask:
    """Return the question about the folders of former names."""
    return Ask(files=(f"{_FOLDER}/*",))
