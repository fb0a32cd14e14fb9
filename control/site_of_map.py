"""A site file made of a DERP map, for relays that are there already. Pure.

A region that a site file can express becomes a host, and `control.derpmap` makes the same region of
it again. Every other one stays in the file as a comment, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from control.yaml_text import block, flow, plain, tree
from inventory.derp_map import OURS, DerpMap, MapNode, MapRegion
from inventory.words import PLACEHOLDER

_CODE = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_DEFAULTS = """\
# Defaults of every host. `invoke init` alone writes a file with all keys explained.
defaults:
  ssh:
    user: root           # or a user with sudo; missing keys come from ~/.ssh/config
  certificate:
    source: letsencrypt
    # set it to true when you have read and accept https://letsencrypt.org/repository/
    agree_terms: false
"""
_HEADSCALE = f"""
headscale:
  url: {PLACEHOLDER}        # server_url, as clients use it
  # ssh: {{address: 203.0.113.30}}              # default: the name in url
  # derp_map: /etc/headscale/derp.yaml        # the file that the map is in
"""
_PASTE = """
# Without a section `headscale`, `invoke derpmap` prints the map and says where to paste it.
"""


@dataclass(frozen=True)
class MadeSite:
    """The text of a site file. `hosts`: their names. `left_out`: a sentence for each region that
    did not become a host."""

    text: str
    hosts: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass
class _HostEntry:
    """A host of the file. `notes`: what of its region the site file does not keep."""

    name: str
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def site_of(found: DerpMap, *, source: str, is_headscales: bool) -> MadeSite:
    """Return the site file. `source`: the words for the map. `is_headscales`: it is headscale's."""
    entries, left_out, texts = list[_HostEntry](), list[str](), list[str]()
    for id, region in sorted(found.regions.items()):
        why = _why_not(id, region, entries)
        if region is None or why:
            left_out.append(f"region {id}{f' ({region.code})' if region else ''}: {why}")
            texts += _commented(left_out[-1], region)
        else:
            entries.append(_entry(region))
            texts += _host_lines(entries[-1])
    head = (
        f"# A derpfleet site file, made of {source}.\n"
        "#\n"
        "# The relays in it run already, and a deploy of a host takes its relay over: look first with\n"
        "# invoke check --host NAME. The map does not say how to log in, which firewall there is, and\n"
        "# which other programs have ports.\n\n"
    )
    omit = "\nderpmap:\n  omit_default_regions: true\n" if found.omit_default_regions else ""
    hosts = "\n".join(["", "hosts:", *texts, ""])
    text = head + _DEFAULTS + hosts + (_HEADSCALE if is_headscales else _PASTE) + omit
    return MadeSite(text, tuple(entry.name for entry in entries), tuple(left_out))


def _why_not(id: int, region: MapRegion | None, before: list[_HostEntry]) -> str:
    """Return why the region cannot be a host of a site file, or ""."""
    if region is None:
        return "it takes Tailscale's own region away, which a site file cannot say"
    return next(_reasons(id, region, {entry.name for entry in before}), "")


def _reasons(id: int, region: MapRegion, taken: set[str]) -> Iterator[str]:
    if id < OURS.start:
        official = f"invoke official --take {region.code or 'CODE'}"
        yield f"ids below {OURS.start} are Tailscale's, which {official} has"
    if id not in OURS:
        yield f"ids of your own regions are {OURS.start} to {OURS.stop - 1}"
    if not _CODE.fullmatch(region.code):
        yield f"its code {region.code!r} is not in lower-case letters, digits and hyphens, 32 at most"
    if region.code in taken:
        yield f"its code {region.code} is also that of another region"
    if len(region.nodes) != 1:
        yield f"it has {len(region.nodes)} nodes, and a relay of derpfleet is a region of its own"
    yield from (why for node in region.nodes for why in _why_no_host(node))


def _why_no_host(node: MapNode) -> Iterator[str]:
    if node.stun_only:
        yield "its node has STUN only"
    if node.stun_port < 0:
        yield "its node has no STUN (STUNPort -1), and every relay of derpfleet has it"
    for key, address in (("IPv4", node.ipv4), ("IPv6", node.ipv6)):
        if address not in ("", "none") and _address(address) is None:
            yield f"its {key} {address!r} is no address"


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _entry(region: MapRegion) -> _HostEntry:
    [node] = region.nodes
    addresses = {"ipv4": _address(node.ipv4), "ipv6": _address(node.ipv6)}
    settings: dict[str, Any] = {"domain": node.host_name}
    settings |= {key: address for key, address in addresses.items() if address}
    settings["region"] = {"id": region.id, "code": region.code, "name": region.name or region.code}
    if region.latitude is not None and region.longitude is not None:
        settings["region"] |= {"latitude": region.latitude, "longitude": region.longitude}
    ports = {"https": (node.derp_port, 443), "stun": (node.stun_port, 3478)}
    if changed := {key: port for key, (port, default) in ports.items() if port not in (0, default)}:
        settings["ports"] = changed
    return _HostEntry(region.code, settings, list(_notes(region, node)))


def _notes(region: MapRegion, node: MapNode) -> Iterator[str]:
    """Yield what of the region the site file does not keep."""
    if node.name not in ("", own := f"{region.id}a"):
        yield f"not kept: Name {node.name}; a deploy makes it {own}"
    if node.cert_name:
        pinned = "with source: self-signed, a deploy pins its own certificate"
        yield f"not kept: CertName {node.cert_name}; {pinned}"
    if node.insecure:
        yield "not kept: InsecureForTests; clients check the certificate"
    if region.avoid or region.no_measure_no_home:
        yield "not kept: Avoid, NoMeasureNoHome"
    if (region.latitude is None) != (region.longitude is None):
        yield "not kept: Latitude or Longitude, as the other one is missing"
    if not node.can_port_80:
        yield "not kept: no CanPort80; nginx as front answers on port 80, and the map says so"


def _host_lines(entry: _HostEntry) -> list[str]:
    settings = {key: value for key, value in entry.settings.items() if not isinstance(value, dict)}
    parts = {key: value for key, value in entry.settings.items() if isinstance(value, dict)}
    return [
        f"  {_key(entry.name)}:",
        *(f"    # {note}" for note in entry.notes),
        *block(settings, 4),
        *(f"    {key}: {flow(value)}" for key, value in parts.items()),
    ]


def _key(name: str) -> str:
    """Return the name as a key of YAML, in quotes if it would be read as a number or a boolean."""
    return name if plain(tree(name)) == name else flow(name)


def _commented(words: str, region: MapRegion | None) -> list[str]:
    lines = block(region.tailcfg(), 2) if region else []
    return [f"  # {words}", *(f"  # {line}" for line in lines)]
