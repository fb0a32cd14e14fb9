"""The reader and the editor of a tailnet's policy, and the reader of any file with a map.

People write both. An API hands over a policy, and a site file is made of a map.
"""

from __future__ import annotations

import json

from control import any_map, hujson, hujson_text, site_of_map
from control.hujson import NotHujson
from control.tailscale import policy
from inventory import derp_map
from inventory.derp_map import NoDerpMap
from inventory.document import parse
from tests.fuzz.target import Target

PATH = ("derpMap", "Regions", "900")
REGION = {"RegionID": 900, "Nodes": [{"Name": "900a"}]}


def edited(data: bytes) -> None:
    """Read the bytes as a policy, put a region into it and take it out again."""
    text = data.decode(errors="replace")
    hujson.parse(text)
    assert len(hujson.standard(text)) == len(text)
    json.loads(hujson.standard(text))
    before = policy.read_policy(text)
    after = hujson_text.put(text, PATH, REGION)
    found = policy.read_policy(after)
    assert found.regions.get(900) is not None
    assert {id: region for id, region in found.regions.items() if id != 900} == {
        id: region for id, region in before.regions.items() if id != 900
    }
    assert hujson_text.put(after, PATH, REGION) == after
    assert 900 not in policy.read_policy(hujson_text.remove(after, PATH)).regions


def imported(data: bytes) -> None:
    """Read the bytes as a file with a map, and make a site file that has each region once."""
    found = any_map.found_in(data.decode(errors="replace"))
    made = site_of_map.site_of(found.map, source=found.kind, is_headscales=found.is_headscales)
    hosts = parse(made.text).data["hosts"] or {}
    assert tuple(hosts) == made.hosts
    assert len(made.hosts) + len(made.left_out) == len(found.map.regions)
    assert all(found.map.regions[host["region"]["id"]].code == name for name, host in hosts.items())


TARGETS = (
    Target(
        "policy",
        edited,
        [hujson, hujson_text, policy],
        (NotHujson,),
        [
            b'"derpMap"', b'"DERPMAP"', b'"Regions"', b'"900"', b'"Nodes"', b'"\\u00e9"', b"null", b"-0",
            b"{", b"}", b"[", b"]", b":", b",", b"//", b"/*", b"*/", b"\n", b"\r\n", b"\t", b"\\", b'"',
        ],
    ),
    Target(
        "map",
        imported,
        [any_map, site_of_map, derp_map],
        (NoDerpMap,),
        [
            b'"derpMap"', b"regions:", b'"Regions"', b"900", b'"901"', b"regionid:", b'"RegionCode"',
            b"nodes:", b'"HostName"', b"null", b"~", b"-1", b"1e9", b".nan", b"&a", b"*a", b"<<:", b"!!str",
            b"|\n", b"# ", b"{", b"}", b"[", b"]", b": ", b",", b"- ", b"\n", b"\r", b"\t", b"\\ud800",
            b'"', b"'", b"\xe2\x80\xa8",
        ],
    ),
)
