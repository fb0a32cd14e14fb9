"""The certificate: where it comes from, its program on the host, and its renewal. `SOURCES` is the table."""

from __future__ import annotations

from collections.abc import Mapping

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Command, Resource
from inventory.choices import SourceName
from inventory.model import Host, Site
from roles import paths
from roles.certificate import acme, brought, program, self_signed
from roles.certificate.contract import Source, files_in
from roles.contract import Issued, ServedBy

SOURCES: Mapping[SourceName, Source] = {
    "letsencrypt": acme,
    "letsencrypt-staging": acme,
    "acme": acme,
    "manual": brought,
    "self-signed": self_signed,
}
ASK: Ask = acme.ASK
COPIED = "command:relay's copy of the certificate"
"""The id of the command that copies the certificate to where the relay may read it."""


def chosen(host: Host) -> Source:
    """Return the module of the host's source."""
    return SOURCES[host.certificate.source]


def issued(host: Host) -> Issued:
    """Return where the certificate is on the host, and what has put it there."""
    return Issued(*files(host), chosen(host).ready(host))


def files(host: Host) -> tuple[str, str]:
    """Return where chain and key are on the host."""
    return files_in(chosen(host).FOLDER, host)


def resources(host: Host, site: Site, facts: Facts, ship: Shipment, served_by: ServedBy) -> list[Resource]:
    """Return the certificate, its program and its renewal; and the relay's copy of it when the relay serves it."""
    acme_part = acme.config(host, facts, served_by.challenge)
    found = [
        *program.resources(host, files(host), facts, served_by, acme_part),
        *chosen(host).resources(host, site, facts, ship, served_by.challenge),
    ]
    if served_by.by_relay:
        copy = paths.CERTIFICATE_PROGRAM
        needs = (*chosen(host).ready(host), f"file:{paths.CERTIFICATE_CONFIG}", f"file:{copy}", f"directory:{paths.RELAY_CERTS}")
        found.append(Command(title=COPIED.removeprefix("command:"), argv=(copy, "copy"), unless=(copy, "copied"), needs=needs))
    return found


def served(after: str) -> Command:
    """Return what fails loudly when the host serves another certificate than the one on disk, after one more reload."""
    return Command(
        title="served certificate",
        argv=(paths.CERTIFICATE_PROGRAM, "deploy"),
        unless=(paths.CERTIFICATE_PROGRAM, "served"),
        needs=(after,),
    )


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return what stands in the way of the chosen source."""
    return chosen(host).refusals(host, facts)
