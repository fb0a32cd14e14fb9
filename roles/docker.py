"""Docker on the host: the distribution's, or Docker's own packages, from Docker or a mirror."""

from __future__ import annotations

import json
from posixpath import dirname

from artefacts.image import REPOSITORY
from engine.facts import Ask, Facts, FileFact
from engine.render import render
from engine.resource import Absent, Command, Directory, File, Image, Package, Resource, Service
from inventory.checkout import CHECKOUT
from inventory.model import Host
from roles.contract import after

_KEYRINGS = "/etc/apt/keyrings"
_KEY = f"{_KEYRINGS}/derpfleet-docker.asc"
# Docker Release (CE deb), 9DC8 5822 9FC7 DD38 854A E2D8 8D81 803C 0EBF CD88
_KEY_SOURCE = CHECKOUT / "files" / "docker.asc"
_SOURCES = "/etc/apt/sources.list.d/derpfleet-docker.sources"
_DAEMON = "/etc/docker/daemon.json"
_OFFICIAL = "https://download.docker.com"
_INSTALLED = "/var/lib/dpkg/info/docker*.list"
UNIT = "docker.service"

_UNIT_FILES = tuple(f"{folder}/systemd/system/{UNIT}" for folder in ("/etc", "/lib"))

ASK = Ask(files=(_DAEMON, _INSTALLED, *_UNIT_FILES), tools=("docker",))


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
    source = [Absent(path=_SOURCES), Absent(path=_KEY)]
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
    if host.docker.packages == "distribution":
        return [Package(package=name) for name in wanted]
    base = (host.docker.mirror or _OFFICIAL).rstrip("/")
    system = "ubuntu" if facts.os_id == "ubuntu" or "ubuntu" in facts.os_like else "debian"
    key = File(path=_KEY, content=_KEY_SOURCE)
    source = File(
        path=_SOURCES,
        content=render("docker.sources.j2", base=base, os_id=system, codename=facts.os_codename, key=_KEY),
        needs=(key.id, "package:ca-certificates"),
    )
    return [
        Directory(path=_KEYRINGS),
        key,
        source,
        *(Package(package=name, needs=(source.id,)) for name in wanted),
    ]


def _is_from_elsewhere(host: Host, facts: Facts) -> bool:
    """Whether the host has another Docker than the one that we would install.

    The two exclude each other.
    """
    packaged = f"/var/lib/dpkg/info/{_names(host, facts)[0]}.list" in facts.files
    return "docker" in facts.tools and not packaged


def _names(host: Host, facts: Facts) -> tuple[str, ...]:
    """Return the packages to install.

    Recommended packages are not installed by themselves, but Docker cannot do without two of them:
    AppArmor's parser, and from Debian 13 on its own client.
    """
    if host.docker.packages == "docker":
        return ("docker-ce", "docker-ce-cli", "containerd.io", "apparmor")
    split = facts.os_id == "debian" and int(facts.os_version.partition(".")[0] or 0) >= 13
    return ("docker.io", "apparmor", *(("docker-cli",) if split else ()))


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
    found = []
    if host.docker.registry_mirrors and _read(facts) is None:
        found.append(
            f"{_DAEMON} on {host.name} is not a JSON object, so registry_mirrors cannot be added to it: "
            "fix it, or remove it."
        )
    if _is_from_elsewhere(host, facts) and not facts.files.keys() & set(_UNIT_FILES):
        path = facts.tools["docker"]
        how = "snap remove docker" if path.startswith("/snap/") else f"dpkg -S {path} names its package"
        found.append(
            f"{path} on {host.name} comes without a {UNIT}, which the relay's container needs: take it away "
            f"({how}), and the next deploy installs Docker; or set hosts.{host.name}.flavour to python."
        )
    return found
