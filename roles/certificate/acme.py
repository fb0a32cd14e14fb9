"""A certificate from an ACME server, ordered and renewed by certbot."""

from __future__ import annotations

from pathlib import Path

from artefacts.programs import PYTHON_FLOOR
from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Absent, Command, Directory, File, Package, Resource, Symlink, Tree
from inventory.choices import source_of
from inventory.model import Host, Site
from roles import paths
from roles.certificate import renewal
from roles.certificate.contract import OBTAINED
from roles.contract import Challenge

FOLDER = "/etc/letsencrypt/live"
_ACME_CA = f"{paths.ETC}/acme-ca.pem"

ASK = Ask(files=(f"{paths.CERTBOT}/*",))


def ready(host: Host) -> tuple[str, ...]:
    """Return the id of the order."""
    return (OBTAINED,)


def config(host: Host, facts: Facts, challenge: Challenge) -> dict[str, object] | None:
    """Return the part of the program's configuration about orders; None where nothing is ordered."""
    if not source_of(host).is_acme:
        return None
    return {
        "server": server(host),
        "contact": host.certificate.contact,
        "ca": _ACME_CA if host.certificate.ca else None,
        "certbot": [facts.python_executable, "-I", f"{paths.CERTBOT}/current"] if _is_shipped(host) else ["certbot"],
        "authenticator": challenge.authenticator,
        "hook": paths.CERTIFICATE_PROGRAM,
    }


def server(host: Host) -> str:
    """The ACME directory's URL."""
    return source_of(host).directory or host.certificate.server or ""


def _is_shipped(host: Host) -> bool:
    return host.certificate.certbot == "shipped"


def resources(host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge) -> list[Resource]:
    found: list[Resource] = _certbot(facts, ship) if _is_shipped(host) else [Package(package="certbot")]
    needs = [resource.id for resource in found if isinstance(resource, Symlink | Package)]
    if host.certificate.ca:
        found.append(File(path=_ACME_CA, content=Path(site.path).parent / Path(host.certificate.ca).expanduser()))
        needs.append(found[-1].id)
    needs += [f"file:{paths.CERTIFICATE_PROGRAM}", f"file:{paths.CERTIFICATE_CONFIG}", "package:openssl"]
    obtain = Command(
        title=OBTAINED.removeprefix("command:"),
        argv=(paths.CERTIFICATE_PROGRAM, "obtain"),
        unless=(paths.CERTIFICATE_PROGRAM, "valid"),
        timeout_s=300,
        needs=(*needs, *challenge.needs),
    )
    return [*found, obtain, *renewal.resources(host)]


def _certbot(facts: Facts, ship: Shipment) -> list[Resource]:
    release = ship.certbot_release
    assert release is not None  # noqa: S101 - make_shipment builds it for a shipped certbot
    tree = Tree(path=f"{paths.CERTBOT}/{release.id}", archive=release.path)
    link = Symlink(path=f"{paths.CERTBOT}/current", target=release.id, needs=(tree.id,))
    kept = {tree.path, link.path}
    old = [Absent(path=path, needs=(link.id,)) for path in sorted(facts.files) if path.startswith(f"{paths.CERTBOT}/") and path not in kept]
    return [Directory(path=paths.CERTBOT), tree, link, *old]


def refusals(host: Host, facts: Facts) -> list[str]:
    if _is_shipped(host) and facts.python[:2] < PYTHON_FLOOR:
        return [
            f"{host.name} has Python {'.'.join(map(str, facts.python))}, and the certbot that is shipped needs "
            f"{'.'.join(map(str, PYTHON_FLOOR))}: set hosts.{host.name}.certificate.certbot to distribution."
        ]
    return []
