"""Docker on the host: the distribution's, or Docker's own packages, from Docker or a mirror."""

from __future__ import annotations

import json
from posixpath import dirname

from artefacts.image import REPOSITORY
from engine.facts import Ask, Facts, FileFact
from engine.render import render
from engine.resource import Absent, Command, Directory, File, Image, Package, Resource, Service
from inventory.choices import takes_dockers_own
from inventory.model import Host
from roles import distributions
from roles.contract import after

_DAEMON = "/etc/docker/daemon.json"
_OFFICIAL = "https://download.docker.com"
_INSTALLED = "/var/lib/dpkg/info/docker*.list"
_QUERY = ("rpm", "--query", "--queryformat", "%{NAME}\\n", "docker", "docker-ce", "moby-engine")
_CLIENT = "/usr/bin/docker"
UNIT = "docker.service"

_UNIT_FILES = tuple(f"{folder}/systemd/system/{UNIT}" for folder in ("/etc", "/lib"))

ASK = Ask(
    files=(_DAEMON, _INSTALLED, *_UNIT_FILES), commands={"docker_rpms": _QUERY}, tools=("docker",)
)


def resources(host: Host, facts: Facts) -> list[Resource]:
    """Return Docker, running, with the site file's registry mirrors before the host's own."""
    daemon = _daemon(host, facts)
    packages = _packages(host, facts)
    return [
        *packages,
        *daemon,
        Service(
            unit=UNIT,
            reload_on=tuple(file.id for file in daemon if isinstance(file, File)),
            needs=tuple(package.id for package in packages if isinstance(package, Package)),
            timeout_s=60,
        ),
    ]


def absent(host: Host, facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of our images, our source of packages and our registry mirrors, after
    `needs`.

    Docker itself stays, and runs on, since other programs may use it. Docker's own packages get no
    updates without their source: the operator adds it again, or removes them.
    """
    images = [Image(ref=ref, present=False) for ref in (REPOSITORY, host.docker.image) if ref]
    repository = distributions.of(facts).family.docker
    source = [Absent(path=repository.path), Absent(path=repository.key_path)]
    return after(needs, [*images, *source, *_mirrors_gone(host, facts)])


def _mirrors_gone(host: Host, facts: Facts) -> list[Resource]:
    """Return daemon.json without our mirrors, or its removal when it says nothing else."""
    there, config = facts.files.get(_DAEMON), _read(facts) or {}
    mirrors = config.pop("registry-mirrors", [])
    left = [mirror for mirror in mirrors if mirror not in host.docker.registry_mirrors]
    if there is None or left == mirrors:
        return []
    if left:
        config["registry-mirrors"] = left
    fixed: list[Resource]
    if config:
        fixed = [_written(config, there)]
    else:
        folder = Directory(path=dirname(_DAEMON), present=False, needs=(f"absent:{_DAEMON}",))
        fixed = [Absent(path=_DAEMON), folder]
    reload = Command(
        title="Docker without our registry mirrors",
        argv=("systemctl", "try-reload-or-restart", UNIT),
        on_change=(fixed[0].id,),
    )
    return [*fixed, reload]


def _packages(host: Host, facts: Facts) -> list[Resource]:
    wanted = _names(host, facts)
    if _is_from_elsewhere(host, facts):
        return []
    if not takes_dockers_own(host):
        return [*(Package(package=name) for name in wanted), *_client(facts, wanted)]
    base = (host.docker.mirror or _OFFICIAL).rstrip("/")
    distribution = distributions.of(facts)
    repository, system = distribution.family.docker, distribution.docker_system
    key = File(path=repository.key_path, content=repository.key)
    text = render(
        repository.template, base=base, system=system, codename=facts.os_codename, key=repository.key_path
    )
    source = File(path=repository.path, content=text, needs=(key.id, "package:ca-certificates"))
    return [
        Directory(path=dirname(repository.key_path)),
        key,
        source,
        *(Package(package=name, needs=(source.id,)) for name in wanted),
    ]


def _is_from_elsewhere(host: Host, facts: Facts) -> bool:
    """Whether the host has another Docker than the one that we would install.

    The two exclude each other.
    """
    wanted, rpms = _names(host, facts)[:1], facts.commands.get("docker_rpms")
    there = {f"/var/lib/dpkg/info/{name}.list" for name in wanted} & facts.files.keys()
    return "docker" in facts.tools and not there and not {*wanted} & {*(rpms.stdout if rpms else "").split()}


def _names(host: Host, facts: Facts) -> tuple[str, ...]:
    """Return the packages to install; () if the distribution has none."""
    distribution = distributions.of(facts)
    return distribution.family.docker.packages if takes_dockers_own(host) else distribution.docker


def _client(facts: Facts, engine: tuple[str, ...]) -> list[Package]:
    """Return the package of Docker's client, if the packages of the engine do not bring it.

    Recommended packages are not installed by themselves, and where there is a package of the client
    it is one of them. Where no row says so, only the host knows, once it has the engine.
    """
    distribution, release = distributions.of(facts), distributions.release(facts)
    name, since = distribution.docker_client, distribution.docker_client_since
    if not name:
        return []
    if since and release and facts.os_id in distributions.DISTRIBUTIONS:
        return [Package(package=name)] if int(release) >= since else []
    needs = tuple(f"package:{package}" for package in engine)
    return [Package(package=name, creates=_CLIENT, needs=needs)]


def _daemon(host: Host, facts: Facts) -> list[Resource]:
    """Return daemon.json with our mirrors first. Its other settings stay."""
    wanted = host.docker.registry_mirrors
    there = facts.files.get(_DAEMON)
    config = _read(facts) or {}
    mirrors = config.get("registry-mirrors", [])
    if not wanted or mirrors[: len(wanted)] == list(wanted):
        if not (there and there.content and wanted):
            return []
        return [Directory(path=dirname(_DAEMON)), _written(there.content, there)]
    config["registry-mirrors"] = [*wanted, *(mirror for mirror in mirrors if mirror not in wanted)]
    return [Directory(path=dirname(_DAEMON)), _written(config, there)]


def _written(content: str | dict[str, list[str]], there: FileFact | None) -> File:
    """Return daemon.json with this content, in place of the file that was read."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
    mode, sha256 = (there.mode, there.sha256) if there else ("0644", "")
    return File(path=_DAEMON, content=text.encode(), mode=mode, only_if_sha256=sha256)


def _read(facts: Facts) -> dict[str, list[str]] | None:
    there = facts.files.get(_DAEMON)
    try:
        config = json.loads((there.content or "") if there else "{}")
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return the reasons against Docker: a daemon.json that cannot be merged, or no docker.service.

    The Docker of snap, podman's and a mere client have no such unit.
    """
    found = _lacking(host, facts)
    if host.docker.registry_mirrors and _read(facts) is None:
        found.append(
            f"{_DAEMON} on {host.name} is not a JSON object, so registry_mirrors cannot be added to it: "
            "fix it, or remove it."
        )
    if _is_from_elsewhere(host, facts) and not facts.files.keys() & set(_UNIT_FILES):
        path = facts.tools["docker"]
        owner = distributions.of(facts).family.owner
        how = "snap remove docker" if path.startswith("/snap/") else f"{owner} {path} names its package"
        found.append(
            f"{path} on {host.name} comes without a {UNIT}, which the relay's container needs: take it away "
            f"({how}), and the next deploy installs Docker; or set hosts.{host.name}.flavour to python."
        )
    return found


def _lacking(host: Host, facts: Facts) -> list[str]:
    """Return a sentence when the wanted packages are not made for the distribution."""
    distribution = distributions.of(facts)
    if takes_dockers_own(host):
        has, why, other = bool(distribution.docker_system), "Docker has no packages for {}", "distribution"
    else:
        has, why, other = bool(distribution.docker), "{} has no Docker of its own", "docker"
    step = f"set hosts.{host.name}.docker.packages to {other}."
    return [] if has else [f"{why.format(distribution.name)}: {step}"]
