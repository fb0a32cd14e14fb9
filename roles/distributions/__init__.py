"""The distributions that hosts may run. `DISTRIBUTIONS` is the table, by the ID of os-release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from artefacts.programs import PYTHON_FLOOR
from engine.facts import Facts
from engine.resource import Command, Package
from inventory.model import Host
from roles.distributions import debian, redhat
from roles.distributions.contract import Distribution, Mirror

_DEBIAN = Distribution(
    family=debian.FAMILY,
    name="Debian",
    oldest=(12,),
    covers_derived=True,
    docker_system="debian",
    docker=("docker.io", "apparmor"),
    docker_client="docker-cli",
    certbot=("certbot",),
    supervisor=("supervisor",),
)
_DEBIANS_MIRROR = Mirror(
    template="mirror-debian.list.j2", keys={"": "/usr/share/keyrings/debian-archive-keyring.gpg"}
)
_UBUNTUS_MIRROR = Mirror(
    template="mirror-ubuntu.list.j2", keys={"": "/usr/share/keyrings/ubuntu-archive-keyring.gpg"}
)
_RHEL = Distribution(
    family=redhat.FAMILY,
    name="Red Hat Enterprise Linux",
    releases=("8", "9", "10"),
    docker_system="rhel",
)
_ROCKYS_MIRROR, _ALMAS_MIRROR = (
    Mirror(
        template="mirror-redhat.repo.j2",
        keys={release: f"/etc/pki/rpm-gpg/RPM-GPG-KEY-{key}" for release, key in keys.items()},
    )
    for keys in (
        {"8": "rockyofficial", "9": "Rocky-9", "10": "Rocky-10"},
        {"8": "AlmaLinux", "9": "AlmaLinux-9", "10": "AlmaLinux-10"},
    )
)
_EPEL = "epel-release"  # adds EPEL, a repository of its own
# Rebuilds of RHEL, which offer EPEL among their own packages.
_REBUILD = replace(
    _RHEL,
    docker_system="centos",
    certbot=(_EPEL, "certbot"),
    supervisor=(_EPEL, "supervisor"),
)

DISTRIBUTIONS: Mapping[str, Distribution] = {
    "debian": replace(_DEBIAN, docker_client_since=13, mirror=_DEBIANS_MIRROR),
    "ubuntu": replace(
        _DEBIAN, name="Ubuntu", oldest=(22, 4), docker_system="ubuntu", mirror=_UBUNTUS_MIRROR
    ),
    "rhel": _RHEL,
    "rocky": replace(_REBUILD, name="Rocky Linux", mirror=_ROCKYS_MIRROR),
    "almalinux": replace(_REBUILD, name="AlmaLinux", mirror=_ALMAS_MIRROR),
    "centos": replace(_REBUILD, name="CentOS Stream", releases=("9", "10")),
    "ol": replace(_RHEL, name="Oracle Linux", docker_system="centos"),
    "fedora": Distribution(
        family=redhat.FAMILY,
        name="Fedora",
        docker_system="fedora",
        docker=("moby-engine",),
        certbot=("certbot",),
        supervisor=("supervisor",),
    ),
    "amzn": Distribution(
        family=redhat.FAMILY, name="Amazon Linux", releases=("2023",), docker=("docker",)
    ),
}


class UnknownDistribution(LookupError):
    """The host runs a distribution that has no row. Its refusal comes before this."""


def known(facts: Facts) -> Distribution | None:
    """Return the host's distribution, or the one that it derives from; None when it has no row."""
    derived = (DISTRIBUTIONS[name] for name in facts.os_like if name in DISTRIBUTIONS)
    from_likeness = next((found for found in derived if found.covers_derived), None)
    return DISTRIBUTIONS.get(facts.os_id, from_likeness)


def of(facts: Facts) -> Distribution:
    """Return the host's distribution. Raises UnknownDistribution."""
    if (found := known(facts)) is None:
        raise UnknownDistribution(facts.os_id)
    return found


def release(facts: Facts) -> str:
    """Return the major release."""
    return facts.os_version.partition(".")[0]


def for_programs(facts: Facts) -> Facts:
    """Return the facts with the Python that runs our programs.

    It is the one that runs the agent, or where that is too old, the distribution's newer one.
    """
    name = of(facts).family.python
    if facts.python[:2] >= PYTHON_FLOOR or not name:
        return facts
    major, minor = map(int, name.removeprefix("python").split("."))
    return replace(facts, python=(major, minor, 0), python_executable=f"/usr/bin/{name}")


def python_packages(facts: Facts) -> list[Package]:
    """Return the package with the Python of `for_programs`, where it is not the host's own."""
    name = of(facts).family.python
    return [Package(package=name)] if name and facts.python_executable == f"/usr/bin/{name}" else []


def in_order(names: Sequence[str], *, creates: str | None = None) -> list[Package]:
    """Return packages, each after the one that brings its source. `creates`: as a Package's."""
    before = [(), *((f"package:{name}",) for name in names)]
    return [
        Package(package=name, creates=creates, needs=needs)
        for name, needs in zip(names, before, strict=False)
    ]


def unmirrored(host: Host, names: Sequence[str], other: str) -> list[str]:
    """Return a sentence when the packages are EPEL's, and the host's are to come from a mirror.

    `other`: a way to do without them.
    """
    if _EPEL not in names or not host.packages.mirror:
        return []
    by_hand = " and ".join(f"`dnf install {name}`" for name in names)
    return [
        f"{names[-1]} is EPEL's, which hosts.{host.name}.packages.mirror does not have: run {by_hand} on "
        f"{host.name}, and deploy again; or {other}."
    ]


def streams(facts: Facts) -> list[str]:
    """Return the module streams that packages come from, in place of the release's default ones."""
    stream = of(facts).family.streams.get(release(facts))
    return [stream] if stream else []


def nginx_stream(facts: Facts) -> list[Command]:
    """Return the commands that make a newer nginx available than the release's default.

    They write what `dnf module enable` does, which would fail on a host that reaches no sources.
    """
    return [_enabled(stream) for stream in streams(facts)]


def _enabled(stream: str) -> Command:
    module, _, version = stream.partition(":")
    path = f"/etc/dnf/modules.d/{module}.module"
    text = f"[{module}]\nname={module}\nstream={version}\nprofiles=\nstate=enabled\n"
    argv = ("sh", "-ec", 'umask 022; mkdir -p "${0%/*}"; printf %s "$1" >"$0"', path, text)
    return Command(title=f"{module}'s stream", argv=argv, creates=path)


def refusals(host_name: str, facts: Facts) -> list[str]:
    """Return a sentence when the host's distribution or its release has no row."""
    found, system = known(facts), f"{facts.os_id} {facts.os_version}"
    if found is None:
        names = ", ".join(row.name for row in DISTRIBUTIONS.values() if not row.covers_derived)
        return [
            f"{host_name} runs {system.strip() or 'an unknown system'}: derpfleet knows "
            f"Debian, Ubuntu and what derives from them, and {names}; install one of those."
        ]
    if not found.releases or facts.os_id not in DISTRIBUTIONS or release(facts) in found.releases:
        return []
    why = found.family.too_old.get(release(facts), "derpfleet does not know it")
    return [
        f"{host_name} runs {system}, and {why}: let the provider install "
        f"{found.name} {found.releases[-1]} or Debian on the host, or put the relay on another one."
    ]


def warnings(host_name: str, facts: Facts) -> list[str]:
    """Return a sentence when the host's release is older than those that its distribution's row is
    made for. Others that derive from it count in their own way."""
    found = DISTRIBUTIONS.get(facts.os_id)
    version = tuple(int(part) for part in facts.os_version.split(".") if part.isdecimal())
    if found is None or not version or version >= found.oldest:
        return []
    return [
        f"{host_name} runs {facts.os_id} {facts.os_version}, and nothing of derpfleet is tested on a release "
        f"of {found.name} before {'.'.join(f'{part:02}' for part in found.oldest)}: let the provider install "
        "a newer one."
    ]
