"""A site file made of a map that is there already: it loads, and makes the same regions again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.any_map import found_in
from control.derpmap import derpmap, yaml_map
from control.site_of_map import MadeSite, site_of
from inventory.derp_map import NoDerpMap, read_derp_map
from inventory.model import Site
from inventory.site_file import compile_site
from inventory.words import PLACEHOLDER
from tests.support.site_text import FILE, GOOD, SECOND, compiled


def made_of(data: Any, *, is_headscales: bool = False) -> MadeSite:
    return site_of(read_derp_map(data), source="a DERP map", is_headscales=is_headscales)


def filled_in(made: MadeSite) -> Site:
    """Return the site once an operator has filled in the rest."""
    text = made.text.replace("agree_terms: false", "agree_terms: true")
    return compiled(text.replace(PLACEHOLDER, "https://headscale.example.org"))


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
CODE = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True).filter(lambda code: code != "headscale")
NAME = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=64).filter(
    lambda name: PLACEHOLDER not in name  # the loader refuses it
)
PLACE = st.floats(-90, 90).map(lambda degrees: round(degrees, 4))


@st.composite
def regions(draw: st.DrawFn) -> dict[str, Any]:
    """Return a map with regions as `control.derpmap` makes them."""
    ids = draw(st.lists(st.integers(900, 999), min_size=1, max_size=5, unique=True))
    codes = draw(st.lists(CODE, min_size=len(ids), max_size=len(ids), unique=True))
    found: dict[str, Any] = {}
    for id, code in zip(ids, codes, strict=True):
        ipv4, ipv6 = draw(st.sampled_from([(1, 1), (1, 0), (0, 1)]))
        node = {
            "Name": f"{id}a",
            "RegionID": id,
            "HostName": f"{draw(LABEL)}.r{id}.example.org",
            "IPv4": f"203.0.113.{id - 800}" if ipv4 else "none",
            "IPv6": f"2001:db8::{id}" if ipv6 else "none",
            "DERPPort": draw(st.sampled_from([443, 3489, 8443])),
            "STUNPort": draw(st.sampled_from([3478, 3479])),
            "CanPort80": True,
        }
        place = {"Latitude": draw(PLACE), "Longitude": draw(PLACE)} if draw(st.booleans()) else {}
        head = {"RegionID": id, "RegionCode": code, "RegionName": draw(NAME)}
        found[str(id)] = {**head, **place, "Nodes": [node]}
    return {"OmitDefaultRegions": draw(st.booleans()), "Regions": dict(sorted(found.items()))}


@settings(max_examples=30, deadline=None)
@given(regions())
def test_the_map_of_the_made_site_is_the_map_that_it_was_made_of(whole: dict[str, Any]) -> None:
    made = made_of(whole)
    assert made.left_out == ()
    assert derpmap(filled_in(made)) == whole


def test_what_the_operator_has_to_fill_in_is_what_the_loader_names() -> None:
    made = made_of(derpmap(compiled(GOOD + SECOND)), is_headscales=True)
    found = compile_site(made.text, FILE)
    assert isinstance(found, list)
    assert sorted(problem.path for problem in found) == ["defaults.certificate.agree_terms", "headscale.url"]
    assert filled_in(made).control.url == "https://headscale.example.org"


REGION = derpmap(compiled(GOOD))["Regions"]["900"]
NODE = REGION["Nodes"][0]


@pytest.mark.parametrize(
    ("id", "region", "why"),
    [
        ("901", None, "takes Tailscale's own region away"),
        ("17", {**REGION, "RegionID": 17}, "invoke official --take hk has"),
        ("1000", {**REGION, "RegionID": 1000}, "900 to 999"),
        ("900", {**REGION, "Nodes": [NODE, NODE]}, "it has 2 nodes"),
        ("900", {**REGION, "Nodes": []}, "it has 0 nodes"),
        ("900", {**REGION, "RegionCode": "HK"}, "its code 'HK' is not in lower-case"),
        ("900", {**REGION, "Nodes": [{**NODE, "STUNOnly": True}]}, "STUN only"),
        ("900", {**REGION, "Nodes": [{**NODE, "STUNPort": -1}]}, "has no STUN"),
        ("900", {**REGION, "Nodes": [{**NODE, "IPv4": "1.2.3"}]}, "its IPv4 '1.2.3' is no address"),
    ],
)
def test_what_cannot_be_a_host_is_a_comment_with_the_reason(id: str, region: Any, why: str) -> None:
    other = {**REGION, "RegionID": 999, "RegionCode": "other"}
    made = made_of({"Regions": {id: region, "999": other}})
    assert made.hosts == ("other",)
    assert len(made.left_out) == 1 and why in made.left_out[0]
    assert f"  # {made.left_out[0]}\n" in made.text
    assert list(filled_in(made).hosts) == ["other"]


def test_a_code_that_two_regions_have_makes_one_host() -> None:
    made = made_of({"Regions": {"900": REGION, "901": {**REGION, "RegionID": 901}}})
    assert made.hosts == ("hk",) and "also that of another region" in made.left_out[0]


def test_what_a_host_does_not_keep_is_noted_in_it() -> None:
    node = {"HostName": "hk1.example.org", "CertName": f"sha256-raw:{'ab' * 32}", "InsecureForTests": True}
    region: dict[str, Any] = {"RegionID": 900, "RegionCode": "on", "Avoid": True, "Latitude": 1}
    region["Nodes"] = [node | {"Name": "1"}]
    made = made_of({"Regions": {"900": region}})
    lost = ("CertName sha256-raw:ab", "InsecureForTests", "Avoid", "no CanPort80", "Name 1;", "Latitude")
    for words in lost:
        assert made.text.count(f"# not kept: {words}") == 1
    host = filled_in(made).hosts["on"]
    assert (host.region.name, host.ports.https, host.ports.stun, host.ipv4) == ("on", 443, 3478, None)


POLICY = """\
// our policy
{
  "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"],},],
  /* the relays */
  "DERPMap": {"regions": {"900": %s,},},
}
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (POLICY % json.dumps(REGION), "a Tailscale policy"),
        (json.dumps({"Regions": {"900": REGION}}), "a DERP map"),
        ("\ufeff" + json.dumps({"regions": {"900": REGION}}, indent=1), "a DERP map"),
        ("# ours\n" + yaml_map(compiled(GOOD)), "a map file of headscale"),
    ],
)
def test_each_kind_of_file_is_known_by_its_content(text: str, kind: str) -> None:
    found = found_in(text)
    assert (found.kind, found.is_headscales) == (kind, "headscale" in kind)
    assert found.map == read_derp_map({"Regions": {"900": REGION}})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "neither a policy nor a DERP map"),
        ("{}", "no derpMap, and no Regions"),
        ('{"derpMap": {}}', "Regions: Field required"),
        ('{"derpMap": [}', "line 1, column 14"),
        ("regions:\n  900: [", "line"),
        ("- 1\n", "no mapping of keys"),
        ("hosts: {}\n", "no derpMap, and no Regions"),
        ("a: " + "[" * 5000, "^values are nested too deeply"),
        ('{"derpMap": {"Regions": {}},\n"DERPMap": {}}', "line 2, column 1: DERPMap is here a second time"),
        ('{"Regions": {"900": null,\n"900": null}}', "line 2, column 1: 900 is here a second time"),
        ('{"Regions": {"900": null, "0900": null}}', "an id is there twice"),
        ("regions: {}\nRegions: {}\n", "Regions is there twice"),
        ("[1]", "no mapping of keys"),
    ],
)
def test_a_file_without_a_map_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(NoDerpMap, match=why):
        found_in(text)


def test_a_key_that_is_twice_outside_the_map_is_the_policys_own() -> None:
    assert found_in('{"acls": 1, "acls": 2, "derpMap": {"Regions": {}}}').map.regions == {}


def test_the_samples_of_headscale_and_of_the_docs_become_sites() -> None:
    sample = Path(__file__).parent / "headscale" / "derp.yaml"
    found = found_in(sample.read_text())
    made = site_of(found.map, source=found.kind, is_headscales=True)
    assert made.hosts == ("office",)
    assert made.left_out == ("region 1: it takes Tailscale's own region away, which a site file cannot say",)
    assert filled_in(made).hosts["office"].domain == "derp.example.com"
