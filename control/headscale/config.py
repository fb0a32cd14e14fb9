"""headscale's config.yaml: the settings that concern the map, and our path in `derp.paths`. Pure.

headscale reads its configuration through viper, which ignores the case of keys. So this module
does, too.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from control.yaml_text import CannotPatch, patch, plain, tree
from inventory.document import NotYaml
from relay.golang.flag import parse_duration

# The working directory of the unit that headscale ships. Names in derp.paths are relative to it.
_WORKING_DIRECTORY = "/var/lib/headscale"


class BadConfig(ValueError):
    """The configuration cannot be read or cannot be changed. The text says why."""


@dataclass(frozen=True)
class Embedded:
    """The region of headscale's own relay."""

    id: int
    code: str


@dataclass(frozen=True)
class HeadscaleConfig:
    """The settings of headscale that concern the map.

    `paths`, `urls`: where headscale reads maps. `update_s`: seconds between two readings of the
    map; None when it is read at the start only. `embedded`: headscale's own relay, if it is on.
    `base_domain`: "" without MagicDNS. `listen`, `metrics`: addresses as seen on the host;
    `metrics` is "" when that listener is off.
    """

    paths: tuple[str, ...]
    urls: tuple[str, ...]
    update_s: float | None
    embedded: Embedded | None
    base_domain: str
    listen: str
    tls: bool
    metrics: str


def parse_config(text: str) -> HeadscaleConfig:
    """Read the text of a config.yaml. Raises BadConfig."""
    config = _lower(_plain(text))
    derp, dns = _section(config, "derp"), _section(config, "dns") or _section(config, "dns_config")
    server = _section(derp, "server")
    metrics = config.get("metrics_listen_addr", "127.0.0.1:9090")
    ticks, magic = derp.get("auto_update_enabled") is True, dns.get("magic_dns", True) is not False
    return HeadscaleConfig(
        paths=tuple(map(_absolute, _texts(derp, "paths"))),
        urls=tuple(_texts(derp, "urls")),
        update_s=_duration_s(derp.get("update_frequency", "3h")) if ticks else None,
        embedded=_embedded(server) if server.get("enabled") is True else None,
        base_domain=str(dns.get("base_domain") or "").strip(".").lower() if magic else "",
        listen=_loopback(str(config.get("listen_addr") or "127.0.0.1:8080")),
        tls=bool(config.get("tls_cert_path") or config.get("tls_letsencrypt_hostname")),
        metrics=_loopback(str(metrics)) if metrics else "",
    )


def _embedded(server: dict[str, Any]) -> Embedded:
    return Embedded(server.get("region_id", 0), str(server.get("region_code", "")))


def with_path(text: str, path: str) -> str:
    """Return the configuration with `path` added under derp.paths. Raises BadConfig."""
    if path in parse_config(text).paths:
        return text
    wanted = _plain(text)
    derp = _in(wanted, "derp", {})
    paths = _in(derp, "paths", [])
    name = _name(derp, "paths")
    derp[name] = [*(paths.split() if isinstance(paths, str) else paths), path]
    try:
        return patch(text, wanted)
    except (CannotPatch, NotYaml) as error:
        words = f"{error}: add {path} to derp.paths by hand, restart headscale, then deploy again"
        raise BadConfig(words) from None


def _plain(text: str) -> dict[str, Any]:
    try:
        config = plain(tree(text))
    except NotYaml as error:
        raise BadConfig(error.words) from None
    if not isinstance(config, dict):
        raise BadConfig("it is not a mapping")
    return config


def _lower(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {str(key).lower(): _lower(item) for key, item in value.items()}


def _name(section: dict[str, Any], key: str) -> str:
    """Return the key as the section spells it."""
    return next((name for name in section if str(name).lower() == key), key)


def _in(section: dict[str, Any], key: str, default: Any) -> Any:
    """Return the value under `key`; put `default` there when there is none."""
    name = _name(section, key)
    if section.get(name) is None:
        section[name] = default
    return section[name]


def _section(config: dict[str, Any], key: str) -> dict[str, Any]:
    part = config.get(key) or {}
    if not isinstance(part, dict):
        raise BadConfig(f"{key} is not a mapping")
    return part


def _texts(section: dict[str, Any], key: str) -> list[str]:
    value = section.get(key) or []
    if isinstance(value, str):
        return value.split()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadConfig(f"derp.{key} is not a list of texts")
    return value


def _absolute(path: str) -> str:
    return posixpath.normpath(posixpath.join(_WORKING_DIRECTORY, path))


def _duration_s(text: Any) -> float | None:
    """Return the seconds of a text for Go's time.ParseDuration, as 1h30m.

    A bare number is nanoseconds. None when the text is neither, or not positive.
    """
    try:
        seconds = text * 1e-9 if isinstance(text, int) else parse_duration(str(text))
    except ValueError:
        return None
    return seconds if seconds > 0 else None


def _loopback(listen: str) -> str:
    """Return the address on which the host itself reaches this listener."""
    host, _, port = listen.rpartition(":")
    is_everywhere = host in ("", "0.0.0.0", "[::]")  # noqa: S104 - compared, not bound
    return f"127.0.0.1:{port}" if is_everywhere else listen
