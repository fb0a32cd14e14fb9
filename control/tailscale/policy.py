"""Our regions in a tailnet's policy. Pure.

The policy is HuJSON that people write. Only derpMap changes in it: under Regions the entries of our
regions and of the official ones that were chosen, and OmitDefaultRegions, which is only ever set to
true. Nothing of it is set to null: that would take a region of Tailscale away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control import official
from control.derpmap import Pins, lower, missing_pin, region
from control.hujson import NotHujson, Value, duplicates, parse
from control.hujson_text import put, remove
from control.regions import Region, Regions, called, clash, hostnames, refusal
from inventory.model import Host, Site

_MAP, _REGIONS, _OMIT = "derpMap", "Regions", "OmitDefaultRegions"
_LIVE_MIN = 2  # regions that clients need when they have no others


@dataclass(frozen=True)
class Policy:
    """A policy's text and its DERP map: `regions` by id, with their names in lower case."""

    text: str
    regions: Regions
    omits_default: bool

    @property
    def document(self) -> Mapping[str, Any]:
        """Return its map, which clients get beside Tailscale's regions or in their place."""
        return {_REGIONS.lower(): {str(id): region for id, region in self.regions.items()}}


def read_policy(text: str) -> Policy:
    """Return the policy.

    Raises NotHujson, also for a derpMap that is there twice, or whose keys are.
    """
    root = parse(text)
    derpmap = _part(root, _MAP)
    if derpmap is None:
        return Policy(text, {}, omits_default=False)
    for error in duplicates(derpmap):
        raise error
    omit, regions = derpmap.find(_OMIT), _part(derpmap, _REGIONS)
    found: dict[int, Region | None] = {}
    for entry in (regions.entries or ()) if regions else ():
        key = str(entry.key)
        if not (key.isascii() and key.isdigit() and key == str(int(key[:9]))):
            raise NotHujson(text, entry.start, f"{key[:40]!r} is no id of a region")
        found[int(key)] = _region(entry.value)
    return Policy(text, found, omits_default=omit is not None and omit.value.plain() is True)


def _part(value: Value, key: str) -> Value | None:
    """Return the object of this key; None when it is missing or null. Raises NotHujson."""
    entry = value.find(key)
    if entry is None or (entry.value.entries is None and entry.value.plain() is None):
        return None
    if not entry.value.is_object:
        raise NotHujson(value.text, entry.value.start, f"{entry.key} is no object")
    return entry.value


def _region(value: Value) -> Region | None:
    """Return the region with a name for each node; None when it is null. Raises NotHujson."""
    if value.entries is None and value.plain() is None:
        return None
    if not value.is_object:
        raise NotHujson(value.text, value.start, "a region is an object or null")
    found: Region = lower(value.plain())
    nodes = found.get("nodes") or []
    if not (isinstance(nodes, list) and all(isinstance(node, dict) for node in nodes)):
        raise NotHujson(value.text, value.start, "the Nodes of this region are no list of objects")
    return found | {"nodes": [{"hostname": "", **node} for node in nodes]}


def with_regions(policy: Policy, hosts: Sequence[Host], *, omit: bool, pins: Pins | None = None) -> Policy:
    """Return the policy with the regions of these hosts. `omit`: without Tailscale's own."""
    text = policy.text
    if omit and not policy.omits_default:
        text = put(text, (_MAP, _OMIT), True)
    for host in sorted(hosts, key=lambda host: host.region.id):
        text = put(
            text,
            (_MAP, _REGIONS, str(host.region.id)),
            region(host, pin=(pins or {}).get(host.name)),
        )
    return read_policy(text)


def with_official(policy: Policy, site: Site) -> Policy:
    """Return the policy with the official regions that the site takes, and without its former ones.

    None is added to a policy that leaves Tailscale's own in the map: clients have all of them.
    """
    text = policy.text
    chosen = site.official.chosen if site.official and policy.omits_default else {}
    for id, taken in chosen.items():
        text = put(text, (_MAP, _REGIONS, str(id)), taken.tailcfg())
    return without_regions(read_policy(text), official.left_out(site, policy.regions))


def without_regions(policy: Policy, ids: Collection[int]) -> Policy:
    """Return the policy without these regions."""
    text = policy.text
    for id in ids:
        text = remove(text, (_MAP, _REGIONS, str(id)))
    return read_policy(text)


def not_ours(policy: Policy, host: Host, where: str) -> str:
    """Return why the region of the host's id is not the host's to change, or "".

    `where`: the policy, in words.
    """
    found = policy.regions.get(host.region.id)
    return refusal(found, host, where, "policy") if found else ""


def refusals(policy: Policy, site: Site, hosts: Sequence[Host], pins: Pins, where: str) -> Iterator[str]:
    """Yield the reasons why these hosts' regions may not enter the policy, each a sentence."""
    ours = {host.region.id for host in site.hosts.values()}
    others = {id: region for id, region in policy.regions.items() if region and id not in ours}
    yield from official.refusals(site, [*official.present(where, policy.regions, here=True)])
    for host in hosts:
        yield missing_pin(host, pins)
        yield not_ours(policy, host, where)
        for id, other in others.items():
            if hostnames(other) != [host.domain]:  # else its own, under a former id
                yield clash(other, host, f"region {id} ({called(other)}) in {where}")


def too_few_left(before: Policy, after: Policy, not_live: Collection[int], where: str) -> str:
    """Return why clients would have too few relays after this change, or "".

    `not_live`: ids of our regions whose relays are not proved. A policy that has too few already
    may be changed as long as it loses none: the change may be what repairs it.
    """
    had, live = _live(before, not_live), _live(after, not_live)
    is_no_worse = before.omits_default and had <= live
    if not after.omits_default or len(live) >= _LIVE_MIN or is_no_worse:
        return ""
    named = f"only region {min(live)}" if live else "no region"
    step = " Leave derpmap.omit_default_regions out of the site file until then."
    return (
        f"OmitDefaultRegions would leave clients of {where} with {named} that is live. They need "
        f"{_LIVE_MIN}, so that there is another when one is down.{'' if before.omits_default else step}"
    )


def _live(policy: Policy, not_live: Collection[int]) -> set[int]:
    """Return the ids of the regions that clients can use."""
    return {id for id, one in policy.regions.items() if one and one["nodes"] and id not in not_live}


def changes(before: Policy, after: Policy) -> list[str]:
    """Return the changes from one policy to the other, each in words."""
    ids = sorted({*before.regions, *after.regions})
    found = []
    for id in ids:
        old, new = before.regions.get(id), after.regions.get(id)
        if old != new:
            word = "added" if old is None else "removed" if new is None else "changed"
            found.append(f"region {id} {word}")
    return found + [f"{_OMIT} set"] * (after.omits_default and not before.omits_default)
