"""Our regions as a DERP map, for Tailscale's policy file and for headscale.

Pure. A policy file is JSON with tailcfg's names, and takes strings as region ids. tailcfg's structs
have JSON tags only. So headscale's YAML files take the Go names in lower case, and bare integers as
region ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from control.yaml_text import block
from inventory.choices import answers_http, source_of
from inventory.model import Host, Site

Pins = Mapping[str, str]  # host name -> SHA-256 of its certificate (DER), in hex


def region_node(host: Host, *, pin: str | None = None) -> dict[str, Any]:
    """Return the host as a tailcfg.DERPNode. `pin` is used instead of the site's own.

    With one address given, the other family is switched off ("none"). Then clients need no DNS, and
    try no address that does not exist.
    """
    pin = pin or host.certificate.pin
    node: dict[str, Any] = {"Name": f"{host.region.id}a", "RegionID": host.region.id, "HostName": host.domain}
    if pin:
        node["CertName"] = f"sha256-raw:{pin}"
    if host.ipv4 or host.ipv6:
        node |= {"IPv4": str(host.ipv4 or "none"), "IPv6": str(host.ipv6 or "none")}
    can_80 = host.ports.http == 80 and answers_http(host)
    return node | {"DERPPort": host.ports.https, "STUNPort": host.ports.stun, "CanPort80": can_80}


def region(host: Host, *, pin: str | None = None) -> dict[str, Any]:
    """Return the host's region as a tailcfg.DERPRegion.

    It has one node: two nodes in a region would have to be meshed.
    """
    given = host.region
    place = {"Latitude": given.latitude, "Longitude": given.longitude} if given.latitude is not None else {}
    head = {"RegionID": given.id, "RegionCode": given.code, "RegionName": given.name}
    return {**head, **place, "Nodes": [region_node(host, pin=pin)]}


def by_id(site: Site) -> list[tuple[str, Host]]:
    """Return the site's hosts with their names, by the ids of their regions."""
    return sorted(site.hosts.items(), key=lambda item: item[1].region.id)


def derpmap(site: Site, *, pins: Pins | None = None) -> dict[str, Any]:
    """Return the site as a tailcfg.DERPMap, with the official regions it takes, for json.dumps."""
    omit = site.derpmap.omit_default_regions
    chosen = site.official.chosen if site.official and omit else {}  # else clients have all of them
    return {
        "OmitDefaultRegions": omit,
        "Regions": {str(id): taken.tailcfg() for id, taken in chosen.items()}
        | {str(host.region.id): region(host, pin=(pins or {}).get(name)) for name, host in by_id(site)},
    }


def yaml_region(host: Host, *, pin: str | None = None) -> dict[str, Any]:
    """Return the region in the spelling of headscale's files."""
    spelled: dict[str, Any] = lower(region(host, pin=pin))
    return spelled


def yaml_official(site: Site) -> dict[int, dict[str, Any]]:
    """Return the official regions that the site takes, in the same spelling, by their ids."""
    chosen = site.official.chosen if site.official else {}
    return {id: lower(region.tailcfg()) for id, region in chosen.items()}


def yaml_map(site: Site, *, pins: Pins | None = None) -> str:
    """Return the site as a file for headscale's derp.paths, with the official regions it takes."""
    regions = {host.region.id: yaml_region(host, pin=(pins or {}).get(name)) for name, host in by_id(site)}
    regions = yaml_official(site) | regions
    return "\n".join(block({"regions": regions})) + "\n"


def warnings(site: Site, *, pins: Pins | None = None) -> list[str]:
    """Return sentences about settings that are allowed but harmful, with the changes to make."""
    found = []
    if site.derpmap.omit_default_regions and len(site.hosts) < 2:
        found.append(
            "derpmap.omit_default_regions leaves clients with a single relay: when it is down, "
            "nodes without a direct path are cut off. Deploy a second host first."
        )
    return found + [problem for host in site.hosts.values() if (problem := missing_pin(host, pins))]


def missing_pin(host: Host, pins: Pins | None = None) -> str:
    """Return what to do when clients could not know the host's certificate; "" when they can."""
    if not source_of(host).needs_pin or host.certificate.pin or host.name in (pins or {}):
        return ""
    return (
        f"The certificate of {host.name} is self-signed and its SHA-256 is not known, so no client would "
        f"accept it: run invoke deploy --host {host.name}, which reads it on the host; "
        f"or set hosts.{host.name}.certificate.pin, if you know it."
    )


def lower(value: Any) -> Any:
    """Return a map, or a part of one, with its keys in lower case."""
    if isinstance(value, dict):
        return {key.lower(): lower(item) for key, item in value.items()}
    return [lower(item) for item in value] if isinstance(value, list) else value
