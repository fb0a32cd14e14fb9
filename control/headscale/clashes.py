"""Regions of others that are in the way of ours, in map files. Pure; each reason is a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from control.derpmap import yaml_region
from control.headscale.merge import hostnames, is_of
from control.headscale.reader import Region, Regions
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


def taken(site: Site, maps: Maps, host: Host) -> Iterator[str]:
    """Yield why the host's id, code or names cannot go into the map: another region has them."""
    id, code, domain = host.region.id, host.region.code, host.domain
    node_name = yaml_region(host)["nodes"][0]["name"]
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
        elif region.get("regioncode") == code:
            yield f"The code {code} of {host.name} is taken by {where}: give {host.name} another one."
        elif domain in hostnames(region):
            yield f"{domain} is in the map already, as {where}: take it out there."
        elif any(node.get("name") == node_name for node in region["nodes"]):
            yield (
                f"The node name {node_name} of {host.name} is taken by {where}: "
                f"give {host.name} another region id."
            )


def lost(maps: Maps, host: Host) -> Iterator[str]:
    """Yield why the region of the host's id in the map file may not be changed: it is of others."""
    id = host.region.id
    region = maps.regions.get(id)
    if region is None:
        return
    if strangers := _other_nodes(region, host):
        yield (
            f"Region {id} in {maps.path} has nodes of others, too: "
            f"{', '.join(strangers)}. They would be lost: give {host.name} another id, "
            "or take these nodes out of the file."
        )
    elif not is_of(region, host):
        yield (
            f"Region {id} in {maps.path} is {called(region)}, "
            f"which is not {host.name}: give {host.name} another id, or take that region out of the file."
        )


def called(region: Region) -> str:
    """Return a region's code and names, for people."""
    return f"'{region.get('regioncode', '')}' at {', '.join(hostnames(region))}"


def _other_nodes(region: Region, host: Host) -> list[str]:
    """Return the nodes beside the host's own. A single node is the host's, under a former name."""
    nodes = [(str(node.get("name", "")), str(node["hostname"])) for node in region["nodes"]]
    return [f"{name} at {where}" for name, where in nodes if where != host.domain] if len(nodes) > 1 else []
