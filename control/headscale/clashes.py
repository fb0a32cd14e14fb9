"""Regions of others that are in the way of ours, in map files. Pure; each reason is a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from control import official
from control.regions import Region, Regions, called, clash, hostnames, refusal
from inventory.model import Host, Site


@dataclass(frozen=True)
class Maps:
    """The regions of the map file at `path`, and of the files beside it that headscale reads."""

    path: str
    regions: Regions
    elsewhere: Mapping[str, Regions] = field(default_factory=dict)

    def others(self, id: int) -> Iterator[tuple[str, int, Region]]:
        """Yield every region with its file and id, but not region `id` of the map file."""
        for path, regions in ({self.path: self.regions} | dict(self.elsewhere)).items():
            for other_id, region in regions.items():
                if region is not None and (path, other_id) != (self.path, id):
                    yield path, other_id, region


def present(maps: Maps) -> Iterator[official.Other]:
    """Yield every region, for the official ones that go into the map file."""
    yield from official.present(maps.path, maps.regions, here=True)
    for path, regions in maps.elsewhere.items():
        yield from official.present(path, regions, here=False)


def taken(site: Site, maps: Maps, host: Host) -> Iterator[str]:
    """Yield why the host's id, code or names cannot go into the map: another region has them."""
    id, domain = host.region.id, host.domain
    ours = {other.region.id for other in site.hosts.values()}
    for path, other_id, region in maps.others(id):
        where = f"region {other_id} ({called(region)}) in {path}"
        if other_id == id:
            yield (
                f"Region {id} is in {path}, too, and headscale uses the last of two files: "
                "take it out there, or set headscale.derp_map to that file."
            )
        elif path == maps.path and domain in hostnames(region) and other_id not in ours:
            continue  # the host's own, under a former id
        elif path == maps.path and other_id in ours:
            continue  # another host of the site, which has its own rules
        elif why := clash(region, host, where):
            yield why


def lost(maps: Maps, host: Host) -> Iterator[str]:
    """Yield why the region of the host's id in the map file may not be changed: it is of others."""
    region = maps.regions.get(host.region.id)
    if region is not None and (why := refusal(region, host, maps.path, "file")):
        yield why
