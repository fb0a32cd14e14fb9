"""The renewal: a systemd timer, or a cron line if asked; and what `invoke renew` runs."""

from __future__ import annotations

from zlib import crc32

from engine.facts import Facts
from engine.render import render
from engine.resource import Absent, Command, File, Package, Resource, Service
from inventory.model import Host
from roles import paths

_WRITABLE = ("/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt", paths.WEBROOT, paths.RELAY_CERTS)
_TIMER = "derpfleet-certificate.timer"
_SERVICE = "derpfleet-certificate.service"
_CRON = "/etc/cron.d/derpfleet-certificate"


def resources(host: Host) -> list[Resource]:
    """Return a systemd timer, or a cron line if asked; never both."""
    timer, service = f"{paths.SYSTEMD}/{_TIMER}", f"{paths.SYSTEMD}/{_SERVICE}"
    program = paths.CERTIFICATE_PROGRAM
    if host.certificate.renewal == "cron":
        minute = crc32(host.name.encode()) % 60
        return [
            Package(package="cron"),
            File(path=_CRON, content=render("certificate.cron.j2", host=host, program=program, minute=minute)),
            Service(unit=_TIMER, enabled=False, running=False),
            Absent(path=timer),
            Absent(path=service),
        ]
    return [
        Absent(path=_CRON),
        File(path=service, content=render("certificate.service.j2", host=host, program=program, writable=_WRITABLE)),
        File(path=timer, content=render("certificate.timer.j2", host=host)),
        Service(unit=_TIMER, restart_on=(f"file:{timer}",), needs=(f"file:{service}",)),
    ]


def absent() -> list[Resource]:
    """Return what takes both away."""
    return [
        Absent(path=_CRON),
        Service(unit=_TIMER, enabled=False, running=False),
        Absent(path=f"{paths.SYSTEMD}/{_TIMER}"),
        Absent(path=f"{paths.SYSTEMD}/{_SERVICE}"),
    ]


def run(host: Host, facts: Facts, *, force: bool) -> list[Resource]:
    """What `invoke renew` runs: an order when one is due, or with `force` in any case, and the proof that its result is served."""
    program = paths.CERTIFICATE_PROGRAM
    fresh = (program, "younger", str(facts.now)) if force else (program, "valid")
    argv = (program, "renew", "--force") if force else (program, "renew")
    renew = Command(title="renewal", argv=argv, unless=fresh, timeout_s=400, role="certificate")
    served = Command(
        title="served certificate", argv=(program, "deploy"), unless=(program, "served"), needs=(renew.id,), role="certificate"
    )
    return [renew, served]
