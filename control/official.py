"""Tailscale's official regions in a map: those that were chosen, and no others. Pure.

They are the only regions below 900 that are written into headscale's map file or into a policy. A
region there counts as Tailscale's when its nodes have the names that Tailscale's own region of that
id has. Every other one is somebody else's, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from control.regions import Region, Regions, hostnames
from inventory.derp_map import MapRegion
from inventory.model import Site


@dataclass(frozen=True)
class Other:
    """A region that clients get already. `where`: its place, in words.

    `region`: as it is in the map that the chosen ones go into; None when it is elsewhere.
    """

    where: str
    id: int
    code: str
    region: Region | None = None


def present(place: str, regions: Regions, *, here: bool) -> Iterator[Other]:
    """Yield the regions of a map. `here`: the chosen ones go into this map."""
    for id, region in regions.items():
        code, names = str((region or {}).get("regioncode", "")), ", ".join(hostnames(region))
        called = f"'{code}' at {names}" if region else "null"
        yield Other(f"region {id} ({called}) in {place}", id, code, region if here else None)


def refusals(site: Site, there: Sequence[Other]) -> Iterator[str]:
    """Yield why a chosen region cannot go into the map: another one has its id or its code."""
    for id, region in (site.official.chosen if site.official else {}).items():
        step = "take other regions (invoke official --take CODE), or take that one out there."
        for other in there:
            same = other.id == id and not _is_it(other.region, region)
            if same or (other.id != id and other.code == region.code):
                yield f"The official region {id} ({region.code}) is in the way of {other.where}: {step}"


def left_out(site: Site, current: Regions) -> list[int]:
    """Return the ids of Tailscale's regions in the map that are no longer chosen."""
    every = site.official.regions if site.official else {}
    taken = site.official.taken if site.official else ()
    return [id for id, one in every.items() if id not in taken and _is_it(current.get(id), one)]


def _is_it(region: Region | None, official: MapRegion) -> bool:
    return bool({node.host_name for node in official.nodes} & set(hostnames(region)))
