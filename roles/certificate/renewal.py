"""The renewal: a systemd timer, or a cron line if asked; and the commands of `invoke renew`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from zlib import crc32

from engine.facts import Facts
from engine.render import render
from engine.resource import Absent, Command, File, Package, Resource, Service
from inventory.choices import RenewalName
from inventory.model import Host
from roles import distributions, paths
from roles.contract import Challenge

_TIMER = "derpfleet-certificate.timer"
_SERVICE = "derpfleet-certificate.service"
_CRON = "/etc/cron.d/derpfleet-certificate"
_STAMP = f"/var/lib/systemd/timers/stamp-{_TIMER}"  # when a persistent timer ran last


def resources(
    host: Host, facts: Facts, challenge: Challenge, writable: tuple[str, ...]
) -> list[Resource]:
    """Return the renewal's unit, started by a systemd timer, or by a cron line if asked.

    `challenge`: how orders are proved. `writable`: the folders that they write to.
    """
    service = f"{paths.SYSTEMD}/{_SERVICE}"
    program = paths.CERTIFICATE_PROGRAM
    text = render(
        "certificate.service.j2", host=host, program=program, challenge=challenge, writable=writable
    )
    return STARTERS[host.certificate.renewal](host, facts, File(path=service, content=text))


def _by_timer(host: Host, _: Facts, once: File) -> list[Resource]:
    timer = File(path=f"{paths.SYSTEMD}/{_TIMER}", content=render("certificate.timer.j2", host=host))
    return [Absent(path=_CRON), once, timer, Service(unit=_TIMER, restart_on=(timer.id,), needs=(once.id,))]


def _by_cron(host: Host, facts: Facts, once: File) -> list[Resource]:
    hour, minute = divmod(crc32(host.name.encode()) % 720, 60)
    line = render("certificate.cron.j2", host=host, service=_SERVICE, hour=hour, minute=minute)
    cron = File(path=_CRON, content=line, needs=(once.id,))
    daemon = distributions.of(facts).family.cron
    package = Package(package=daemon.package)
    return [package, Service(unit=daemon.unit, needs=(package.id,)), once, cron, *_no_timer()]


STARTERS: Mapping[RenewalName, Callable[[Host, Facts, File], list[Resource]]] = {
    "timer": _by_timer,
    "cron": _by_cron,
}


def _no_timer() -> list[Resource]:
    return [
        Service(unit=_TIMER, enabled=False, running=False),
        Absent(path=f"{paths.SYSTEMD}/{_TIMER}"),
    ]


def off() -> list[Resource]:
    """Return neither timer nor cron line, for a certificate that no program renews."""
    return [Absent(path=_CRON), *_no_timer(), Absent(path=f"{paths.SYSTEMD}/{_SERVICE}")]


def absent() -> list[Resource]:
    """Return neither timer nor cron line, and no trace of the timer. The package cron stays."""
    return [*off(), Absent(path=_STAMP, needs=(f"service:{_TIMER}",))]


def run(host: Host, facts: Facts, *, force: bool) -> list[Resource]:
    """Return the commands of `invoke renew`.

    The first orders when an order is due, or with `force` in any case. The second fails when the
    result is not served.
    """
    program, role = paths.CERTIFICATE_PROGRAM, "certificate"
    fresh = (program, "younger", str(facts.now)) if force else (program, "valid")
    argv = (program, "renew", "--force") if force else (program, "renew")
    renew = Command(title="renewal", argv=argv, unless=fresh, timeout_s=400, role=role)
    served = Command(
        title="served certificate",
        argv=(program, "deploy"),
        unless=(program, "served"),
        needs=(renew.id,),
        role=role,
    )
    return [renew, served]
