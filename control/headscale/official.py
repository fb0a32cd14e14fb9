"""Tailscale's official regions in headscale's map file: those that were chosen, and no others.

Pure. They are the only regions below 900 that are written there. A region of the file counts as
Tailscale's when its nodes have the names that Tailscale's own region of that id has; every other
one is somebody else's, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator

from control.headscale.clashes import Maps
from control.headscale.config import Embedded
from control.regions import Region, Regions, hostnames
from inventory.derp_map import MapRegion
from inventory.model import Site


def left_out(site: Site, current: Regions) -> list[int]:
    """Return the ids of Tailscale's regions in the map file that are no longer chosen."""
    every = site.official.regions if site.official else {}
    taken = site.official.taken if site.official else ()
    return [id for id, one in every.items() if id not in taken and _is_it(current.get(id), one)]


def refusals(site: Site, maps: Maps, embedded: Embedded | None = None) -> Iterator[str]:
    """Yield why a chosen region cannot go into the map file: another one has its id or its code."""
    for id, region in (site.official.chosen if site.official else {}).items():
        step = "take other regions (invoke official --take CODE), or take that one out there."
        for where, other, code, is_it in _others(maps, embedded, region):
            if (other == id and not is_it) or (other != id and code == region.code):
                yield f"The official region {id} ({region.code}) is in the way of {where}: {step}"


def _others(
    maps: Maps, embedded: Embedded | None, official: MapRegion
) -> Iterator[tuple[str, int, str, bool]]:
    """Yield the place, id and code of each region, and whether it is the official one itself."""
    if embedded:
        yield "headscale's own relay (derp.server)", embedded.id, embedded.code, False
    for path, regions in ({maps.path: maps.regions} | dict(maps.elsewhere)).items():
        for id, region in regions.items():
            code, names = str((region or {}).get("regioncode", "")), ", ".join(hostnames(region))
            called = f"'{code}' at {names}" if region else "null"
            is_it = path == maps.path and _is_it(region, official)
            yield f"region {id} ({called}) in {path}", id, code, is_it


def _is_it(region: Region | None, official: MapRegion) -> bool:
    return bool({node.host_name for node in official.nodes} & set(hostnames(region)))
