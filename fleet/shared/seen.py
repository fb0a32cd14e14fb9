"""The settings by which a relay is seen from outside, as a generation keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from engine.generations import Generation, History
from inventory.choices import flavour_name
from inventory.errors import DerpfleetError
from inventory.model import Host

SEEN, DERPER = "seen", "derper"  # among the words of a generation
_KEPT = {"domain", "region", "ipv4", "ipv6", "ports", "flavour", "front", "external", "relay"}
_OURS = {"keys_file", "mesh_key", "tailscaled"}  # of `relay`: they may name the controller's files
_ON_HOST = ("domain", "ipv4", "ipv6", "ports")  # those of the map that the host has, too
_MOVES = ("domain", "ipv4", "ipv6", "ports.https", "ports.stun", "flavour", "region.id")


class SiteDiffers(DerpfleetError):
    """A generation is seen from outside in another way than the site file says."""


def settings(host: Host) -> str:
    """Return the settings as JSON. No secret is among them, and no file of the controller."""
    return host.model_dump_json(include=_KEPT, exclude={"relay": _OURS})


def settings_of(generation: Generation) -> Mapping[str, Any]:
    """Return the settings that a generation has kept; {} for text that is none of them."""
    try:
        found = json.loads(generation.about.get(SEEN, ""))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def as_in(host: Host, about: Mapping[str, str]) -> Host:
    """Return the host with the settings that the words of a generation have. See `former`."""
    return former(host, about.get(SEEN, ""))


def as_kept(host: Host, generation: Generation | None) -> tuple[Host, str]:
    """Return the host as a generation has it, and the derper whose mesh key it has then.

    Without a generation it is the host of the site file, with "".
    """
    words = generation.about if generation else {}
    return as_in(host, words), words.get(DERPER, "")


def former(host: Host, kept: str) -> Host:
    """Return the host with settings that a generation has kept.

    Where they cannot be read, it is the host of the site file: a host may report anything.
    """
    try:
        found = {key: value for key, value in json.loads(kept).items() if key in _KEPT}
        found["relay"] = {key: value for key, value in found["relay"].items() if key not in _OURS}
        then = Host.model_validate({"name": host.name, **found})
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return host
    relay = then.relay.model_copy(update={key: getattr(host.relay, key) for key in _OURS})
    return host.model_copy(update={key: getattr(then, key) for key in _KEPT} | {"relay": relay})


def refuse_other_site(host: Host, history: History, target: Generation, *, next: str) -> None:
    """Raise SiteDiffers when the proof and the map would be about another relay than that one."""
    other = differences(host, as_in(host, target.about))
    if other:
        raise SiteDiffers(
            f"generation {target.number} does not fit the site file any more",
            host=host.name,
            why=f"nothing was changed; in force now: {history.in_force}; " + "; ".join(other),
            next=next,
        )


def differences(host: Host, then: Host, keys: tuple[str, ...] = _ON_HOST) -> list[str]:
    """Return in words which settings of the map differ between the site file and `then`.

    The rest of a region is not on the host, and stays as the site file has it. `keys`: the
    beginnings of those that count.
    """
    now, before = (_flat_settings(one) for one in (host, then))
    return [
        f"hosts.{host.name}.{key} was {before.get(key, 'absent')}, and is {now.get(key, 'absent')}"
        for key in sorted(now | before)
        if key.startswith(keys) and now.get(key) != before.get(key)
    ]


def moved(host: Host, then: Host) -> list[str]:
    """Return in words why nodes have to leave the relay before it is changed from `then`.

    They would find it in another place, or the change of its program takes too long.
    """
    return differences(host, then, _MOVES)


def _flat_settings(host: Host) -> dict[str, Any]:
    """Return the settings by dotted keys, with the flavour in its short form."""
    tree = host.model_dump(mode="json", include={*_ON_HOST, "region"})
    return dict(_flat({**tree, "flavour": flavour_name(host)}))


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif value is not None:
            yield f"{above}{key}", value
