"""Docker on the host: the distribution's, or Docker's own packages, from their place or a mirror."""

from __future__ import annotations

import json

from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Directory, File, Package, Resource, Service
from inventory.checkout import CHECKOUT
from inventory.model import Host

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

ASK = Ask(files=(_DAEMON, _INSTALLED, *_UNIT_FILES))


def resources(host: Host, facts: Facts) -> list[Resource]:
    """Docker running, with the registry mirrors that the site file names besides those that are there."""
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
    return [Directory(path=_KEYRINGS), key, source, *(Package(package=name, needs=(source.id,)) for name in wanted)]


def _is_from_elsewhere(host: Host, facts: Facts) -> bool:
    """Whether the host has another Docker than the one that we would install: the two cannot both be there."""
    return "docker" in facts.tools and f"/var/lib/dpkg/info/{_names(host, facts)[0]}.list" not in facts.files


def _names(host: Host, facts: Facts) -> tuple[str, ...]:
    """Without recommended packages Docker lacks what it cannot do without: AppArmor's parser, and from Debian 13 on its own client."""
    if host.docker.packages == "docker":
        return ("docker-ce", "docker-ce-cli", "containerd.io", "apparmor")
    split = facts.os_id == "debian" and int(facts.os_version.partition(".")[0] or 0) >= 13
    return ("docker.io", "apparmor", *(("docker-cli",) if split else ()))


def _daemon(host: Host, facts: Facts) -> list[Resource]:
    """daemon.json with our mirrors first; what else stands in it stays."""
    wanted = host.docker.registry_mirrors
    there = facts.files.get(_DAEMON)
    config = _read(facts) or {}
    mirrors = config.get("registry-mirrors", [])
    if not wanted or mirrors[: len(wanted)] == list(wanted):
        content = (there.content or "").encode() if there and wanted else b""
    else:
        config["registry-mirrors"] = [*wanted, *(mirror for mirror in mirrors if mirror not in wanted)]
        content = json.dumps(config, indent=2).encode() + b"\n"
    if not content:
        return []
    mode = there.mode if there else "0644"
    return [Directory(path="/etc/docker"), File(path=_DAEMON, content=content, mode=mode, only_if_sha256=there.sha256 if there else "")]


def _read(facts: Facts) -> dict[str, list[str]] | None:
    there = facts.files.get(_DAEMON)
    try:
        config = json.loads((there.content or "") if there else "{}")
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def refusals(host: Host, facts: Facts) -> list[str]:
    """A daemon.json that cannot be merged, and a docker that systemd cannot start for us: snap's, podman's, a mere client."""
    found = []
    if host.docker.registry_mirrors and _read(facts) is None:
        found.append(f"{_DAEMON} on {host.name} is not a JSON object, so registry_mirrors cannot be added to it: mend it, or remove it.")
    if _is_from_elsewhere(host, facts) and not facts.files.keys() & set(_UNIT_FILES):
        path = facts.tools["docker"]
        found.append(
            f"{path} on {host.name} comes without a {UNIT}, which the relay's container needs: take it away "
            f"({'snap remove docker' if path.startswith('/snap/') else f'dpkg -S {path} names its package'}), and the next deploy installs "
            f"Docker; or set hosts.{host.name}.flavour to python."
        )
    return found
