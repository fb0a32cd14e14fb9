"""A certificate from an ACME server, ordered and renewed by certbot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Command, Directory, File, Package, Resource, Symlink, Tree
from inventory.choices import source_of
from inventory.model import Host, Site
from roles import distributions, paths
from roles.certificate import renewal
from roles.certificate.contract import OBTAINED
from roles.contract import Challenge

_ETC = "/etc/letsencrypt"
FOLDER = f"{_ETC}/live"
_ACME_CA = f"{paths.ETC}/acme-ca.pem"
_ACCOUNTS = f"{_ETC}/accounts"
_RENEWAL = f"{_ETC}/renewal"
# files/lineage.py keeps broken lineages in the first, and orders in the second.
_OURS = (f"{_ETC}/derpfleet-kept", f"{_ETC}/derpfleet-order")
_STATE = ("/var/lib/letsencrypt", "/var/log/letsencrypt")

ASK = Ask(files=(f"{paths.CERTBOT}/*",))
ASK_ABSENT = Ask(files=(f"{_RENEWAL}/*.conf",))


def ready(host: Host) -> tuple[str, ...]:
    """Return the id of the order."""
    return (OBTAINED,)


def config(host: Host, facts: Facts, challenge: Challenge) -> dict[str, object] | None:
    """Return the part of the program's configuration about orders; None without orders."""
    if not source_of(host).is_acme:
        return None
    return {
        "server": server(host),
        "contact": host.certificate.contact,
        "ca": _ACME_CA if host.certificate.ca else None,
        "certbot": f"{paths.CERTBOT}/current" if _is_shipped(host) else None,
        "authenticator": challenge.authenticator,
        "hook": paths.CERTIFICATE_PROGRAM,
    }


def server(host: Host) -> str:
    """Return the ACME directory's URL."""
    return source_of(host).directory or host.certificate.server or ""


def _is_shipped(host: Host) -> bool:
    return host.certificate.certbot == "shipped"


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return certbot, the order, and the renewal."""
    found: list[Resource]
    found = _certbot(facts, ship) if _is_shipped(host) else _packages(facts)
    needs = [resource.id for resource in found if isinstance(resource, Symlink | Package)]
    if host.certificate.ca:
        ca = Path(site.path).parent / Path(host.certificate.ca).expanduser()
        found.append(File(path=_ACME_CA, content=ca))
        needs.append(found[-1].id)
    needs += [f"file:{paths.CERTIFICATE_PROGRAM}", f"file:{paths.CERTIFICATE_CONFIG}", "package:openssl"]
    obtain = Command(
        title=OBTAINED.removeprefix("command:"),
        argv=(paths.CERTIFICATE_PROGRAM, "obtain"),
        unless=(paths.CERTIFICATE_PROGRAM, "valid"),
        timeout_s=300,
        needs=(*needs, *challenge.needs),
    )
    return [*found, obtain, *renewal.resources(host, facts)]


def _packages(facts: Facts) -> list[Resource]:
    """Return the distribution's certbot, each package after the one that it may come from."""
    names = distributions.of(facts).family.certbot
    before = [(), *((f"package:{name}",) for name in names)]
    return [Package(package=name, needs=needs) for name, needs in zip(names, before, strict=False)]


def _certbot(facts: Facts, ship: Shipment) -> list[Resource]:
    release = ship.certbot_release
    assert release is not None  # noqa: S101 - make_shipment builds it for a shipped certbot
    tree = Tree(path=f"{paths.CERTBOT}/{release.id}", archive=release.path)
    link = Symlink(path=f"{paths.CERTBOT}/current", target=release.id, needs=(tree.id,))
    there = {path for path in facts.files if path.startswith(f"{paths.CERTBOT}/")}
    old = [Absent(path=path, needs=(link.id,)) for path in sorted(there - {tree.path, link.path})]
    return [Directory(path=paths.CERTBOT), tree, link, *old]


def absent(facts: Facts) -> list[Resource]:
    """Return the removal of our certbot, and of its certificates, keys and account that are ours.

    Ours are the certificates that call our program after each order. Those of other programs stay,
    with the accounts that they use. When there are none, all of certbot's state goes. Of the
    package certbot only that state goes.
    """
    found: list[Resource] = [Absent(path=path) for path in (paths.CERTBOT, _ACME_CA, *_OURS)]
    texts = {
        path.removeprefix(f"{_RENEWAL}/").removesuffix(".conf"): fact.content or ""
        for path, fact in facts.files.items()
        if path.startswith(f"{_RENEWAL}/")
    }
    ours = {name: text for name, text in texts.items() if paths.CERTIFICATE_PROGRAM in text}
    theirs = {name: text for name, text in texts.items() if name not in ours}
    if theirs:
        return [*found, *_certificates_gone(ours, theirs)]
    return [*found, *_state_gone()] if ours else found


def _certificates_gone(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[Resource]:
    """Return the removal of our certificates, by name, and of the accounts that only they use."""
    places = [(f"{_RENEWAL}/{name}.conf", f"{FOLDER}/{name}", f"{_ETC}/archive/{name}") for name in ours]
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
    """Return a sentence when the host's Python is too old for the shipped certbot."""
    if _is_shipped(host) and facts.python[:2] < PYTHON_FLOOR:
        return [
            f"{host.name} has Python {'.'.join(map(str, facts.python))}, and the certbot that is shipped "
            f"needs {'.'.join(map(str, PYTHON_FLOOR))}: set hosts.{host.name}.certificate.certbot to "
            "distribution."
        ]
    if not _is_shipped(host) and not distributions.of(facts).family.certbot:
        return [
            f"{distributions.of(facts).name} has no package of certbot: set "
            f"hosts.{host.name}.certificate.certbot to shipped."
        ]
    return []
