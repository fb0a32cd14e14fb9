"""A certificate from an ACME server, by a challenge that the front or certbot answers."""

from __future__ import annotations

from pathlib import Path

from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Absent, Command, File, Package, Resource, Symlink
from inventory.choices import ships_certbot, source_of
from inventory.model import Host, Site
from roles import paths
from roles.certificate import account, certbot, renewal
from roles.certificate.contract import OBTAINED, Orders
from roles.contract import Challenge

_ACME_CA = f"{paths.ETC}/acme-ca.pem"

# A server with several profiles chooses one by itself. This is Let's Encrypt's for 90 days; a
# server that does not have it is not asked for it.
_PROFILE = "classic"

ASK_ABSENT = certbot.ASK_ABSENT
ask, files, refusals = certbot.ask, certbot.files, certbot.refusals


def ready(host: Host) -> tuple[str, ...]:
    """Return the id of the order."""
    return (OBTAINED,)


def orders(host: Host, challenge: Challenge) -> Orders:
    """Return the orders from the site file's ACME server."""
    return Orders(
        server=source_of(host).directory or host.certificate.server or "",
        account=account.settings(host),
        contact=host.certificate.contact,
        ca=_ACME_CA if host.certificate.ca else None,
        certbot=f"{paths.CERTBOT}/current" if ships_certbot(host) else None,
        authenticator=challenge.authenticator,
        names=(host.domain, *host.certificate.names),
        profile=(host.certificate.profile or _PROFILE) if ships_certbot(host) else None,
        limits=source_of(host).limits,
        environment=challenge.environment,
        stops=challenge.stops,
    )


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return certbot, the order, and the renewal."""
    found = certbot.resources(host, facts, ship)
    needs = [resource.id for resource in found if isinstance(resource, Symlink | Package)]
    if host.certificate.ca:
        ca = Path(site.path).parent / Path(host.certificate.ca).expanduser()
        found.append(File(path=_ACME_CA, content=ca))
        needs.append(found[-1].id)
    needs += account.needs(host)
    needs += [f"file:{paths.CERTIFICATE_PROGRAM}", f"file:{paths.CERTIFICATE_CONFIG}", "package:openssl"]
    obtain = Command(
        title=OBTAINED.removeprefix("command:"),
        argv=(paths.CERTIFICATE_PROGRAM, "obtain"),
        unless=(paths.CERTIFICATE_PROGRAM, "valid"),
        timeout_s=300,
        needs=(*needs, *challenge.needs),
    )
    writable = (*certbot.WRITES, *challenge.writes)
    return [*found, obtain, *renewal.resources(host, facts, challenge, writable)]


def replaced() -> list[Resource]:
    """Return the removal of our certbot unless a generation has it, and of the ACME server's CA."""
    return [Absent(path=_ACME_CA), certbot.OURS_UNUSED]


def absent(facts: Facts) -> list[Resource]:
    """Return the removal of certbot with our certificates, and of the ACME server's CA."""
    return [Absent(path=_ACME_CA), *certbot.absent(facts)]
