"""The parts of every relay host: a user, directories, the time, and TCP that fits long ways."""

from __future__ import annotations

from dataclasses import replace

from engine.facts import Ask, Facts
from engine.resource import Absent, AsFound, Directory, Group, Package, Resource, Service, Sysctl, User
from inventory.model import Host
from roles import distributions, paths
from roles.contract import after

_CLOCKS = (
    "chrony.service",
    "chronyd.service",
    "ntp.service",
    "ntpsec.service",
    "openntpd.service",
)
_BBR = "/lib/modules/*/kernel/net/ipv4/tcp_bbr.ko*"
_FQ = "/lib/modules/*/kernel/net/sched/sch_fq.ko*"
_CONTAINER, _QDISC = "/run/systemd/container", "/proc/sys/net/core/default_qdisc"
_FIPS = "/proc/sys/crypto/fips_enabled"
_BACKLOG = "net.core.somaxconn"
_CONGESTION, _QUEUE = "net.ipv4.tcp_congestion_control", "net.core.default_qdisc"

# Settings that make a relay faster. Without them it works.
_NICETIES = {
    _BACKLOG: "many clients at once may have to try twice",
    _CONGESTION: "packets over long ways come more slowly",
    _QUEUE: "packets over long ways come more slowly",
}

# derp.NewClient and derp.Server box their first messages by NaCl (Curve25519, XSalsa20, Poly1305).
_FIPS_MODE = (
    "{name} is in FIPS mode, and DERP's handshake is Curve25519 with XSalsa20-Poly1305, which no FIPS module "
    "has: the relay works, as it brings that itself, but it does not comply. TLS of nginx and of our relay "
    "has no X25519 and no ChaCha20 there; Tailscale's clients can do without. If the host has to comply, "
    "put the relay on another; else leave it as it is"
)

ASK = Ask(
    files=(_BBR, _FQ, _CONTAINER, _QDISC, _FIPS),
    commands={"clocks": ("systemctl", "is-active", *_CLOCKS)}
    | {key: ("test", "-w", f"/proc/sys/{key.replace('.', '/')}") for key in _NICETIES},
)


def resources(facts: Facts) -> list[Resource]:
    """Return the resources of every relay host."""
    return [
        Package(package="ca-certificates"),
        Package(package="openssl"),
        *distributions.python_packages(facts),
        Group(group=paths.USER),
        User(user=paths.USER, group=paths.USER, home=paths.STATE),
        Directory(path=paths.ETC),
        Directory(path=paths.OPT),
        Directory(path=f"{paths.OPT}/bin"),
        Directory(path=paths.STATE, mode="0750", group=paths.USER),
        *(setting for setting in _settings(facts) if _can_be_set(facts, setting.key)),
        *_time(facts),
    ]


def _settings(facts: Facts) -> list[Sysctl]:
    return [Sysctl(key=_BACKLOG, value="4096"), *_congestion_control(facts)]


def _can_be_set(facts: Facts, key: str) -> bool:
    """Whether the kernel's setting is there and may be written. A container may have neither."""
    said = facts.commands.get(key)
    return said is None or said.status == 0


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence for each setting that this host cannot have, and one for FIPS mode."""
    unset = [
        f"{setting.key} of {host.name} cannot be set to {setting.value}, as in containers, where it is the "
        f"machine's: the relay works, but {_NICETIES[setting.key]}; set it on the machine, or leave it"
        for setting in _settings(facts)
        if not _can_be_set(facts, setting.key)
    ]
    fips = facts.files.get(_FIPS)
    return [*unset, _FIPS_MODE.format(name=host.name)] if fips and fips.content == "1\n" else unset


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of our directories with all that is in them, of the user and of the
    kernel's settings, after `needs`.

    The packages stay, and so does a running clock. The agent's own state is last: until then a run
    that dies can go on from its notes.
    """
    folders = [Absent(path=path) for path in (paths.ETC, paths.OPT, paths.STATE)]
    user = User(user=paths.USER, group=paths.USER, present=False, needs=(f"absent:{paths.STATE}",))
    group = Group(group=paths.USER, present=False, needs=(user.id,))
    settings = [gone for key in (_BACKLOG, _QUEUE, _CONGESTION) for gone in _setting_gone(key)]
    return after(needs, [*folders, user, group, *settings, Absent(path=paths.AGENT, needs=(group.id,))])


def _setting_gone(key: str) -> list[Resource]:
    """Return the kernel's setting as it was found, and no longer set at boot."""
    gone = Sysctl(key=key, present=False)
    before = AsFound(subject=gone.id, since=paths.ETC)
    return [before, replace(gone, needs=(before.id,))]


def _congestion_control(facts: Facts) -> list[Sysctl]:
    """Return BBR where this kernel has it, loaded or not.

    fq is put under it where the kernel has that. Without fq, BBR paces on its own.
    """
    found: list[Sysctl] = []
    if "bbr" in facts.congestion_controls or _has_module(facts, "tcp_bbr.ko"):
        found.append(Sysctl(key=_CONGESTION, value="bbr"))
        if _QDISC in facts.files and _has_module(facts, "sch_fq.ko"):
            found.insert(0, Sysctl(key=_QUEUE, value="fq"))
    return found


def _has_module(facts: Facts, name: str) -> bool:
    folder = f"/lib/modules/{facts.kernel}/"
    return any(path.startswith(folder) and f"/{name}" in path for path in facts.files)


def _time(facts: Facts) -> list[Resource]:
    """Return a clock daemon, as TLS and ACME need the right time.

    A daemon that is there is left alone. In a container the clock is the machine's.
    """
    clocks = facts.commands.get("clocks")
    if _CONTAINER in facts.files or (clocks is not None and "active" in clocks.stdout.split()):
        return []
    clock = distributions.of(facts).family.clock
    package = Package(package=clock.package)
    return [package, Service(unit=clock.unit, needs=(package.id,))]


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when the host's distribution or init is unknown."""
    found = distributions.refusals(host.name, facts)
    if facts.init != "systemd":
        found.append(
            f"{host.name} was started by {facts.init or 'an unknown init'}, not by systemd, which the "
            "relay's units need."
        )
    return found
