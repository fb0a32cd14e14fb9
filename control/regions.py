"""Regions of a map, and whose they are. Pure.

They have tailcfg's names in lower case, as headscale's files do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from control.derpmap import yaml_region
from inventory.model import Host

Region = dict[str, Any]
Regions = Mapping[int, Region | None]  # None: the map removes this region of Tailscale


def is_of(region: Region | None, host: Host) -> bool:
    """Whether a region of this host's id is the host's own: its code or its name is the same.

    The host may have moved or been renamed.
    """
    if region is None:
        return False
    return region.get("regioncode") == host.region.code or host.domain in hostnames(region)


def hostnames(region: Region | None) -> list[str]:
    """Return the names of a region's nodes."""
    return [str(node["hostname"]) for node in (region or {}).get("nodes", ())]


def called(region: Region) -> str:
    """Return the region's code and nodes in words."""
    return f"'{region.get('regioncode', '')}' at {', '.join(hostnames(region))}"


def renumbered(current: Regions, hosts: Sequence[Host]) -> dict[int, Host]:
    """Return hosts of the site by former ids, which the map has and the site no longer has."""
    ids = {host.region.id for host in hosts}
    former = {id: region for id, region in current.items() if id not in ids}
    return {id: host for id, region in former.items() for host in hosts if host.domain in hostnames(region)}


def ids_of(regions: Regions, hosts: Sequence[Host], host: Host) -> list[int]:
    """Return the ids that one of the site's hosts may have in the map: its own, and former ones.

    The region of its own id may be a stranger's: `refusal` says so.
    """
    own = [host.region.id] if regions.get(host.region.id) is not None else []
    return own + [id for id, one in renumbered(regions, hosts).items() if one.name == host.name]


def hosts_in(regions: Regions, hosts: Sequence[Host]) -> list[Host]:
    """Return those of the site's hosts that have a region of their own in the map."""
    former = {host.name for host in renumbered(regions, hosts).values()}
    return [host for host in hosts if host.name in former or is_of(regions.get(host.region.id), host)]


def refusal(region: Region, host: Host, where: str, document: str) -> str:
    """Return why the host may not have the region of its id, or "".

    `where`: its place, such as a path. `document`: the word for that, such as "file".
    """
    id = host.region.id
    if strangers := _other_nodes(region, host):
        return (
            f"Region {id} in {where} has nodes of others, too: {', '.join(strangers)}. They would be lost: "
            f"give {host.name} another id, or take these nodes out of the {document}."
        )
    if not is_of(region, host):
        return (
            f"Region {id} in {where} is {called(region)}, which is not {host.name}: "
            f"give {host.name} another id, or take that region out of the {document}."
        )
    return ""


def clash(region: Region, host: Host, where: str) -> str:
    """Return why the host cannot be in one map with another region, or "". `where`: that region."""
    code, node_name = host.region.code, yaml_region(host)["nodes"][0]["name"]
    if region.get("regioncode") == code:
        return f"The code {code} of {host.name} is taken by {where}: give {host.name} another one."
    if host.domain in hostnames(region):
        return f"{host.domain} is in the map already, as {where}: take it out there."
    if any(node.get("name") == node_name for node in region.get("nodes", ())):
        return (
            f"The node name {node_name} of {host.name} is taken by {where}: "
            f"give {host.name} another region id."
        )
    return ""


def _other_nodes(region: Region, host: Host) -> list[str]:
    """Return the nodes beside the host's own. A single node is the host's, under a former name."""
    nodes = [(str(node.get("name", "")), str(node["hostname"])) for node in region.get("nodes", ())]
    return [f"{name} at {where}" for name, where in nodes if where != host.domain] if len(nodes) > 1 else []
