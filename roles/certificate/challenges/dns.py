"""The challenge in the names' DNS zone: a plugin of certbot writes it, with credentials of ours."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.resource import Absent, Directory, File, Resource
from inventory.acme import DnsZone
from inventory.model import Host
from roles import paths
from roles.certificate import providers
from roles.contract import Challenge

_CREDENTIALS = f"{paths.DNS_CREDENTIALS}/credentials"


def _dns(host: Host) -> DnsZone:
    dns = host.certificate.dns
    assert dns is not None  # noqa: S101 - inventory.certificate_rules refuses the challenge without it
    return dns


def challenge(host: Host, by_front: Challenge) -> Challenge:
    """Return the plugin's arguments. The front has no part in it."""
    dns = _dns(host)
    provider = providers.chosen(dns)
    return Challenge(
        (
            "--authenticator", provider.PLUGIN, *provider.arguments(_CREDENTIALS),
            *providers.propagation(provider, dns.propagation_s),
        ),
        needs=(f"file:{_CREDENTIALS}",),
        environment=provider.environment(_CREDENTIALS),
    )


def resources(host: Host, ship: Shipment) -> list[Resource]:
    """Return the credentials, which only root may read."""
    dns = _dns(host)
    content = providers.chosen(dns).credentials(dns, ship.secrets[dns.secret])
    folder = Directory(path=paths.DNS_CREDENTIALS, mode="0700")
    return [folder, File(path=_CREDENTIALS, content=content, mode="0600", secret=True)]


def absent() -> list[Resource]:
    """Return the removal of the credentials."""
    return [Absent(path=paths.DNS_CREDENTIALS)]
