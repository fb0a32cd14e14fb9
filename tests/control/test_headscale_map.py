"""Our regions in a file with regions of others, and the order in which regions come and go."""

import difflib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.derpmap import yaml_region
from control.headscale.merge import MapStep, merge, plan_registration
from control.headscale.reader import BadMap, parse_map
from control.regions import is_of, renumbered
from inventory.model import Host, Region

SAMPLE = (Path(__file__).parent / "headscale" / "derp.yaml").read_text()


def host(id, name="hk", **more):
    return Host(name=name, domain=f"{name}.example.org", region=Region(id=id, code=name, name=name), **more)


HK, SG = host(900), host(901, "sg")


def regions_of(*hosts):
    return {host.region.id: yaml_region(host) for host in hosts}


def changed(before, after):
    return [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]


def test_regions_are_added_in_the_order_of_their_ids_and_nothing_else_moves():
    after = merge(SAMPLE, put=regions_of(SG, HK))
    assert [line for line in changed(SAMPLE, after) if line[0] == "-"] == []
    assert list(parse_map(after)) == [1, 910, 900, 901]
    assert parse_map(after)[901] == yaml_region(SG)


def test_the_same_again_changes_nothing():
    once = merge(SAMPLE, put=regions_of(HK))
    assert merge(once, put=regions_of(HK)) == once


def test_a_changed_port_is_one_line_and_comments_in_our_region_stay():
    before = merge(SAMPLE, put=regions_of(HK)).replace("derpport: 443", "derpport: 443  # as agreed")
    after = merge(before, put=regions_of(host(900, ports={"https": 3489})))
    assert changed(before, after) == [
        "-         derpport: 443  # as agreed",
        "+         derpport: 3489  # as agreed",
    ]


def test_a_region_is_taken_out_and_the_rest_is_as_it_was():
    assert merge(merge(SAMPLE, put=regions_of(HK)), put={}, remove=[900]) == SAMPLE
    assert merge(SAMPLE, put={}, remove=[900]) == SAMPLE


@pytest.mark.parametrize("text", ["", "# of ours\n", "regions:\n", "regions: {}\n", "regions: {}"])
def test_a_file_without_regions(text):
    assert parse_map(merge(text, put=regions_of(HK))) == regions_of(HK)
    assert merge(text, put={}) == text


def test_flow_style_stays_flow_style():
    before = "regions: {910: {regionid: 910, nodes: [{name: a, regionid: 910, hostname: x}]}}  # terse\n"
    after = merge(before, put=regions_of(HK))
    assert parse_map(after) == parse_map(before) | regions_of(HK)
    assert after.startswith(
        "regions: {910: {regionid: 910, nodes: [{name: a, regionid: 910, hostname: x}]}, 900: {"
    )
    assert after.endswith("}  # terse\n")


def test_a_malformed_file_is_refused():
    with pytest.raises(BadMap, match="headscale skips 'Regions'"):
        merge("Regions: {}\n", put=regions_of(HK))


def test_a_file_that_cannot_be_changed_in_place_is_left_to_a_person():
    with pytest.raises(BadMap, match="write it in block style"):
        merge("homeparams: &none {}\nregions: *none\n", put=regions_of(HK))


REGION = st.builds(
    lambda id, name, nodes: {
        "regionid": id,
        "regioncode": f"c{id}",
        "regionname": name,
        "nodes": [
            {"name": f"n{id}", "regionid": id, "hostname": f"h{id}.example.com", **extra} for extra in nodes
        ],
    },
    st.integers(1, 899),
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12),
    st.lists(
        st.dictionaries(st.sampled_from(["derpport", "stunport"]), st.integers(0, 65535)),
        min_size=1,
        max_size=1,
    ),
)


@settings(max_examples=150)
@given(
    st.lists(REGION, max_size=4, unique_by=lambda region: region["regionid"]), st.integers(1, 4), st.data()
)
def test_the_text_of_others_stays_to_the_byte(regions, width, data):
    text = "# head\nregions:\n" if regions else "# head\n"
    for region in regions:
        pad = " " * width
        comment = data.draw(st.sampled_from(["own", "x # y"]))
        text += f"{pad}{region['regionid']}: {json.dumps(region, ensure_ascii=False)}  # {comment}\n"
    with_ours = merge(text, put=regions_of(HK, SG))
    assert [line for line in changed(text, with_ours) if line[0] == "-"] == []
    assert parse_map(with_ours) == {region["regionid"]: region for region in regions} | regions_of(HK, SG)
    if regions:
        assert merge(with_ours, put={}, remove=[900, 901]) == text


def test_which_region_is_a_hosts_own():
    assert is_of(yaml_region(HK), HK)
    assert is_of(yaml_region(HK), host(900, ports={"https": 3489}))
    assert is_of(yaml_region(HK), HK.model_copy(update={"domain": "moved.example.org"}))
    assert is_of(
        yaml_region(HK), HK.model_copy(update={"region": Region(id=900, code="hkg", name="Hong Kong")})
    )
    assert not is_of(yaml_region(HK), SG)
    assert not is_of(None, HK)


def test_added_and_changed_regions_need_one_step():
    moved = host(901, "sg", ports={"https": 3489})
    assert plan_registration(regions_of(SG), [HK, moved]) == [
        MapStep("add", "hk", 900, "a new region disturbs no client"),
        MapStep("change", "sg", 901, "clients redial a region whose address changed at once"),
    ]
    assert plan_registration(regions_of(HK), [HK]) == []


def test_a_pin_is_part_of_a_region():
    assert [step.action for step in plan_registration(regions_of(HK), [HK], pins={"hk": "ab" * 32})] == [
        "change"
    ]


def test_a_changed_id_is_added_first_and_the_old_one_goes_only_behind_a_stopped_relay():
    now = host(905)
    assert renumbered(regions_of(HK, SG), [now, SG]) == {900: now}
    assert [(step.action, step.region_id) for step in plan_registration(regions_of(HK, SG), [now, SG])] == [
        ("add", 905),
        ("stop", 900),
        ("remove", 900),
        ("start", 905),
    ]


def test_no_plan_removes_a_region_that_was_not_stopped_before():
    for current in (regions_of(HK), regions_of(HK, SG), {}, {1: None}):
        for wanted in ([host(905)], [host(905), host(906, "sg")], [HK]):
            stopped = set()
            for step in plan_registration(current, wanted):
                if step.action == "stop":
                    stopped.add(step.region_id)
                assert step.action != "remove" or step.region_id in stopped
