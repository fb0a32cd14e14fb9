"""A self-signed certificate, made on the host."""

from __future__ import annotations

from ipaddress import ip_address

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Command, Resource
from inventory.model import Host, Site
from roles.certificate import own, renewal
from roles.certificate.contract import OBTAINED
from roles.contract import Challenge

ASK_ABSENT = Ask()
ask, files, orders, refusals = own.ask, own.files, own.orders, own.refusals
replaced, absent = own.replaced, own.absent


def ready(host: Host) -> tuple[str, ...]:
    """Return the id of the command that makes it."""
    return (OBTAINED,)


def resources(
    host: Host, site: Site, facts: Facts, ship: Shipment, challenge: Challenge
) -> list[Resource]:
    """Return one certificate for ten years, made on the host.

    It must not change, because clients know it by its fingerprint.
    """
    fullchain, key = files(host)
    try:
        kind = "IP" if ip_address(host.domain) else ""
    except ValueError:
        kind = "DNS"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    # A common name has 64 characters at most. Clients look at the alternative name.
    argv += ["-nodes", "-days", "3650", "-subj", f"/CN={host.domain[:64]}"]
    argv += ["-addext", f"subjectAltName={kind}:{host.domain}", "-keyout", key, "-out", fullchain]
    valid = ("openssl", "x509", "-noout", "-checkend", str(30 * 86400), "-in", fullchain)
    folders = own.folders(host)
    made = Command(
        title=OBTAINED.removeprefix("command:"),
        argv=tuple(argv),
        unless=valid,
        needs=(folders[-1].id, "package:openssl"),
    )
    return [*folders, made, *renewal.off()]
