"""certbot on the host, and the removal of its certificates that are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Directory, Resource, Symlink, Tree
from inventory.choices import ships_certbot
from inventory.model import Host
from roles import distributions, paths
from roles.certificate.contract import files_in

_ETC = "/etc/letsencrypt"
_LIVE = f"{_ETC}/live"
_ACCOUNTS = f"{_ETC}/accounts"
_RENEWAL = f"{_ETC}/renewal"
# files/lineage.py keeps broken lineages in the first, and orders in the second.
_OURS = (f"{_ETC}/derpfleet-kept", f"{_ETC}/derpfleet-order")
_STATE = ("/var/lib/letsencrypt", "/var/log/letsencrypt")
WRITES = (_ETC, *_STATE)

OURS_UNUSED = Absent(path=paths.CERTBOT, unless_kept=True)
"""The removal of the certbot that the controller brings, once no generation has one.

A rollback to a generation that has one needs it.
"""

ASK_ABSENT = Ask(files=(f"{_RENEWAL}/*.conf",))


def ask(host: Host) -> Ask:
    """Return the questions about the releases that are there."""
    return Ask(files=(f"{paths.CERTBOT}/*",), tools=("certbot",))


def files(host: Host) -> tuple[str, str]:
    """Return where chain and key are."""
    return files_in(_LIVE, host)


def resources(host: Host, facts: Facts, ship: Shipment) -> list[Resource]:
    """Return certbot. Orders need its link or its package."""
    if not ships_certbot(host):
        return _packages(facts)
    release = ship.certbot_release
    assert release is not None  # noqa: S101 - make_shipment builds it for a shipped certbot
    tree = Tree(path=f"{paths.CERTBOT}/{release.id}", archive=release.path, shared=release.shared)
    link = Symlink(path=f"{paths.CERTBOT}/current", target=release.id, needs=(tree.id,))
    there = {path for path in facts.files if path.startswith(f"{paths.CERTBOT}/")}
    others = sorted(there - {tree.path, link.path})
    old = [Absent(path=path, needs=(link.id,), unless_kept=True) for path in others]
    return [Directory(path=paths.CERTBOT), tree, link, *old]


def _packages(facts: Facts) -> list[Resource]:
    """Return the distribution's certbot in place of ours."""
    found = distributions.in_order(distributions.of(facts).certbot)
    return [*found, replace(OURS_UNUSED, needs=tuple(package.id for package in found))]


def absent(facts: Facts) -> list[Resource]:
    """Return the removal of our certbot, and of its certificates, keys and account that are ours.

    Ours are the certificates that call our program after each order. Those of other programs stay,
    with the accounts that they use. When there are none, all of certbot's state goes. Of the
    package certbot only that state goes.
    """
    found: list[Resource] = [Absent(path=path) for path in (paths.CERTBOT, *_OURS)]
    texts, ours = _renewals(facts), our_renewals(facts)
    theirs = {name: text for name, text in texts.items() if name not in ours}
    if theirs:
        return [*found, *_certificates_gone(ours, theirs)]
    return [*found, *_state_gone()] if ours else found


def _renewals(facts: Facts) -> dict[str, str]:
    """Return certbot's renewal configurations by the name of their certificate."""
    return {
        path.removeprefix(f"{_RENEWAL}/").removesuffix(".conf"): fact.content or ""
        for path, fact in facts.files.items()
        if path.startswith(f"{_RENEWAL}/")
    }


def our_renewals(facts: Facts) -> dict[str, str]:
    """Return those of our certificates, which call our program after each order."""
    return {name: text for name, text in _renewals(facts).items() if paths.CERTIFICATE_PROGRAM in text}


def _certificates_gone(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[Resource]:
    """Return the removal of our certificates, by name, and of the accounts that only they use."""
    places = [(f"{_RENEWAL}/{name}.conf", f"{_LIVE}/{name}", f"{_ETC}/archive/{name}") for name in ours]
    used = {_account(text) for text in theirs.values()}
    accounts = sorted({_account(text) for text in ours.values()} - used - {""})
    files = (*(path for three in places for path in three), *accounts)
    servers = [str(above) for path in accounts for above in PurePosixPath(path).parents]
    below = [path for path in dict.fromkeys(servers) if path.startswith(f"{_ACCOUNTS}/")]
    folders = [Directory(path=path, present=False) for path in sorted(below, key=len, reverse=True)]
    return [*(Absent(path=path) for path in files), *folders]


def _account(text: str) -> str:
    """Return the folder of the account that a renewal configuration names, or ""."""
    found = dict(re.findall(r"^(account|server)\s*=\s*(\S+)", text, re.M))
    if len(found) < 2:
        return ""
    return f"{_ACCOUNTS}/{found['server'].partition('://')[2]}/{found['account']}"


def _state_gone() -> list[Resource]:
    """Return the removal of certbot's state. Folders in which other programs have files stay."""
    names = ("accounts", "archive", "csr", "keys", "live", "renewal")
    files = [Absent(path=path) for path in (*(f"{_ETC}/{name}" for name in names), *_STATE)]
    hooks = [f"{_ETC}/renewal-hooks/{when}" for when in ("deploy", "post", "pre")]
    folders = (*hooks, f"{_ETC}/renewal-hooks", _ETC)
    return [*files, *(Directory(path=path, present=False) for path in folders)]


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when the host's Python is too old for the shipped certbot, or when there is
    none to install."""
    if ships_certbot(host) and facts.python[:2] < PYTHON_FLOOR:
        return [
            f"{host.name} has Python {'.'.join(map(str, facts.python))}, and the certbot that is shipped "
            f"needs {'.'.join(map(str, PYTHON_FLOOR))}: set hosts.{host.name}.certificate.certbot to "
            "distribution."
        ]
    if ships_certbot(host):
        return []
    names, other = distributions.of(facts).certbot, f"set hosts.{host.name}.certificate.certbot to shipped"
    if not names:
        return [f"{distributions.of(facts).name} has no package of certbot: {other}."]
    return [] if "certbot" in facts.tools else distributions.unmirrored(host, names, other)
