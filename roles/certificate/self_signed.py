"""A self-signed certificate, made on the host."""

from __future__ import annotations

from ipaddress import ip_address

from artefacts.shipment import Shipment
from engine.facts import Facts
from engine.resource import Command, Resource
from inventory.model import Host, Site
from roles.certificate import renewal
from roles.certificate.contract import OBTAINED, OWN_FOLDER, files_in, own_folder
from roles.contract import Challenge

FOLDER = OWN_FOLDER


def ready(host: Host) -> tuple[str, ...]:
    """Return the id of the command that makes it."""
    return (OBTAINED,)


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: every host has openssl."""
    return []


def resources(host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge) -> list[Resource]:
    """One certificate for ten years, made on the host: clients know it by its fingerprint, so it must not change."""
    fullchain, key = files_in(FOLDER, host)
    try:
        kind = "IP" if ip_address(host.domain) else ""
    except ValueError:
        kind = "DNS"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
    # A common name has 64 characters at most; what clients look at is the alternative name.
    argv += ["-subj", f"/CN={host.domain[:64]}", "-addext", f"subjectAltName={kind}:{host.domain}", "-keyout", key, "-out", fullchain]
    valid = ("openssl", "x509", "-noout", "-checkend", str(30 * 86400), "-in", fullchain)
    folders = own_folder(host)
    needs = (folders[-1].id, "package:openssl")
    return [*folders, Command(title=OBTAINED.removeprefix("command:"), argv=tuple(argv), unless=valid, needs=needs), *renewal.absent()]
