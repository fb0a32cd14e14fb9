"""The keys of a relay that somebody else runs (`managed: false`), which have an effect. Pure.

The other keys are about its host, which nobody of ours changes. They may come from `defaults`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

# They say how the relay has to answer, and how it is registered. (): every key of that section.
_EFFECTIVE: Mapping[str, Collection[str]] = {
    "domain": (),
    "region": (),
    "ipv4": (),
    "ipv6": (),
    "managed": (),
    "ports": ("https", "http", "stun"),
    "front": (),
    "certificate": ("source", "ca", "pin"),
    "relay": ("admission", "open", "verify_client_url", "mesh_key"),
}


def of_no_effect_there(
    own: Any, hosts: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys without an effect, by their paths, with what to do.

    `own`: the hosts as they are written. `hosts`: the same with the keys of `defaults`.
    """
    message = "has no effect with managed: false, as somebody else runs that host: remove it"
    for name, host in hosts.items():
        is_others = isinstance(host, dict) and host.get("managed") is False
        for path in _without_effect(own[name] or {}) if is_others else ():
            yield ("hosts", name, *path), message


def _without_effect(host: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for section, value in host.items():
        some = _EFFECTIVE.get(section)
        if some is None and value is not None:
            yield (section,)
        elif some and isinstance(value, dict):
            yield from ((section, key) for key in value if key not in some and value[key] is not None)
