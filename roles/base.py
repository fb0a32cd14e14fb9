"""What every relay host has: a user, directories, the right time, and TCP that fits long ways."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Directory, Group, Package, Resource, Service, Sysctl, User
from inventory.model import Host, Site
from roles import paths

_CLOCKS = ("chrony.service", "chronyd.service", "ntp.service", "ntpsec.service", "openntpd.service")
_BBR, _FQ = "/lib/modules/*/kernel/net/ipv4/tcp_bbr.ko*", "/lib/modules/*/kernel/net/sched/sch_fq.ko*"
_CONTAINER, _QDISC = "/run/systemd/container", "/proc/sys/net/core/default_qdisc"

ASK = Ask(files=(_BBR, _FQ, _CONTAINER, _QDISC), commands={"clocks": ("systemctl", "is-active", *_CLOCKS)})
_DEBIAN_FAMILY = ("debian", "ubuntu")


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> list[Resource]:
    return [
        Package(package="ca-certificates"),
        Package(package="openssl"),
        Group(group=paths.USER),
        User(user=paths.USER, group=paths.USER, home=paths.STATE),
        Directory(path=paths.ETC),
        Directory(path=paths.OPT),
        Directory(path=f"{paths.OPT}/bin"),
        Directory(path=paths.STATE, mode="0750", group=paths.USER),
        Directory(path=paths.RELAY_CERTS, mode="0750", group=paths.USER),
        Sysctl(key="net.core.somaxconn", value="4096"),
        *_congestion_control(facts),
        *_time(facts),
    ]


def _congestion_control(facts: Facts) -> list[Resource]:
    """BBR where this kernel has it, loaded or not; fq under it where there is that, though BBR paces on its own without."""
    found: list[Resource] = []
    if "bbr" in facts.congestion_controls or _has_module(facts, "tcp_bbr.ko"):
        found.append(Sysctl(key="net.ipv4.tcp_congestion_control", value="bbr"))
        if _QDISC in facts.files and _has_module(facts, "sch_fq.ko"):
            found.insert(0, Sysctl(key="net.core.default_qdisc", value="fq"))
    return found


def _has_module(facts: Facts, name: str) -> bool:
    return any(path.startswith(f"/lib/modules/{facts.kernel}/") and f"/{name}" in path for path in facts.files)


def _time(facts: Facts) -> list[Resource]:
    """TLS and ACME need the right time. A clock daemon that is there is left alone; in a container the clock is the machine's."""
    clocks = facts.commands.get("clocks")
    if _CONTAINER in facts.files or (clocks is not None and "active" in clocks.stdout.split()):
        return []
    return [
        Package(package="systemd-timesyncd"),
        Service(unit="systemd-timesyncd.service", needs=("package:systemd-timesyncd",)),
    ]


def refusals(host: Host, site: Site, facts: Facts) -> list[str]:
    found = []
    if not {facts.os_id, *facts.os_like} & set(_DEBIAN_FAMILY):
        found.append(
            f"{host.name} runs {facts.os_id or 'an unknown system'} {facts.os_version}: derpfleet knows Debian, Ubuntu and what derives "
            "from them; install one of those."
        )
    if facts.init != "systemd":
        found.append(f"{host.name} was started by {facts.init or 'an unknown init'}, not by systemd, which the relay's units need.")
    return found
