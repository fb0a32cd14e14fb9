"""The reader and the editor of a tailnet's policy, which people write and an API hands over."""

from __future__ import annotations

import json

from control import hujson, hujson_text
from control.hujson import NotHujson
from control.tailscale import policy
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
)
