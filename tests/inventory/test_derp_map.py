"""A DERP map of any origin is read as Go reads it, and nothing in it is without a limit."""

from __future__ import annotations

from typing import Any

import pytest

from inventory.derp_map import NoDerpMap, read_derp_map
from tests.support.official import FRA, TAILSCALES


def test_keys_are_read_in_any_case_and_unknown_ones_ignored() -> None:
    plain = read_derp_map(TAILSCALES)
    lower = {
        "regions": {
            int(id): {key.lower(): value for key, value in region.items()}
            for id, region in TAILSCALES["Regions"].items()
        },
        "homeparams": {},
    }
    assert read_derp_map(lower) == plain
    assert plain.regions[4] and plain.regions[4].tailcfg() == {
        **FRA, "Nodes": [{key: value for key, value in FRA["Nodes"][0].items() if value}],
    }


def test_a_region_may_be_taken_away_and_a_key_without_a_value_is_absent() -> None:
    bare = {"RegionID": 900, "RegionCode": None, "Nodes": None}
    found = read_derp_map({"Regions": {"1": None, "900": bare}})
    assert found.regions[1] is None
    assert found.regions[900] and (found.regions[900].code, found.regions[900].nodes) == ("", ())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "Input should be"),
        ({}, "Regions: Field required"),
        ({"Regions": {"x": FRA}}, "Regions.x"),
        ({"Regions": {"5": FRA}}, "Regions.5: its RegionID is 4"),
        ({"Regions": {"4": {**FRA, "RegionCode": "a\nb"}}}, "Regions.4.RegionCode"),
        ({"Regions": {"4": {**FRA, "RegionName": "a\u2028b"}}}, "Regions.4.RegionName"),
        ({"Regions": {"4": {**FRA, "Nodes": [{}]}}}, "Regions.4.Nodes.0.HostName: Field required"),
        ({"Regions": {"4": {**FRA, "Nodes": [{"HostName": "x", "DERPPort": 65536}]}}}, "DERPPort"),
        ({"Regions": {"4": {**FRA, "Nodes": [{"HostName": "x"}] * 65}}}, "at most 64"),
        ({"Regions": {str(id): None for id in range(1, 600)}}, "at most 512"),
    ],
)
def test_what_is_no_map_is_refused_with_its_place(data: Any, why: str) -> None:
    with pytest.raises(NoDerpMap, match=why):
        read_derp_map(data)
