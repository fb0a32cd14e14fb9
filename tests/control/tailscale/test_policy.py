"""Our regions in a policy: whose a region is, what enters, what leaves, how many are left."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.hujson import NotHujson, standard
from control.regions import hostnames, hosts_in, ids_of
from control.tailscale import policy as pure
from control.tailscale.policy import (
    read_policy,
    too_few_left,
    with_official,
    with_regions,
    without_regions,
)
from tests.control.hujson_texts import Writer, comments
from tests.control.tailscale.policies import (
    BARE,
    POLICY,
    hosts,
    of_host,
    policy_with,
    site,
    strangers,
    taking,
)
from tests.support.official import FRA

SITE = site()
WHERE = "the policy of example.com"


def refusals(text: str, *names: str) -> list[str]:
    found = pure.refusals(read_policy(text), SITE, hosts(SITE, *names), {}, WHERE)
    return list(filter(None, found))


def test_only_the_regions_of_these_hosts_enter() -> None:
    after = with_regions(read_policy(POLICY), hosts(SITE, "sg1", "hk1"), omit=False)
    assert list(after.regions) == [12, 950, 900, 901]
    begin, end = POLICY.split("\t\t},\n\t},\n")
    assert after.text.startswith(begin) and after.text.endswith("\t\t},\n\t},\n" + end)
    assert with_regions(after, hosts(SITE, "hk1"), omit=False).text == after.text
    assert without_regions(after, (900, 901)).text == POLICY
    assert not after.omits_default


@given(st.integers(0, 1 << 32), st.booleans())
@settings(max_examples=100, deadline=None)
def test_all_that_is_not_ours_stays_in_any_policy(seed: int, omit: bool) -> None:
    """Its own map may be any, but for the ids of our regions."""
    text = Writer(seed).policy()
    try:
        before = read_policy(text)
    except NotHujson:
        return  # a region that is none
    ours, official = (900, 901), (4, 7)
    if not before.regions.keys().isdisjoint(ours):
        return
    site = taking(SITE, *official)
    after = with_official(with_regions(before, hosts(site, "hk1", "sg1"), omit=omit), site)
    assert after.regions.keys() - {*ours, *official} == before.regions.keys()
    assert {id: after.regions[id] for id in before.regions} == before.regions
    assert Counter(comments(text)) == Counter(comments(after.text))
    left = json.loads(standard(without_regions(after, (*ours, *official)).text))
    was = json.loads(standard(text))
    assert {key: left[key] for key in was if key.lower() != "derpmap"} == {
        key: value for key, value in was.items() if key.lower() != "derpmap"
    }


def test_a_policy_without_a_map_gets_one() -> None:
    after = with_regions(read_policy(BARE), hosts(SITE, "hk1", "sg1"), omit=True)
    assert (sorted(after.regions), after.omits_default) == ([900, 901], True)
    assert after.text.startswith('{\n\t"acls": [],\n\t"derpMap": {\n\t\t"OmitDefaultRegions": true,\n')
    assert with_regions(after, hosts(SITE, "hk1"), omit=False).omits_default  # it is not ours to take back


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "an object with derpMap is needed here"),
        ('{"derpMap": {}, "derpmap": {}}', "derpmap is here a second time: derpMap is in line 1 already"),
        ('{"derpMap": {"Regions": {}, "REGIONS": {}}}', "REGIONS is here a second time"),
        ('{"derpMap": {"Regions": {"900": null, "900": null}}}', "900 is here a second time"),
        ('{"derpMap": {"Regions": {"900": {"Nodes": [{"a": 1, "A": 2}]}}}}', "A is here a second time"),
        ('{"derpMap": []}', "derpMap is no object"),
        ('{"derpMap": {"Regions": 1}}', "Regions is no object"),
        ('{"derpMap": {"Regions": {"0900": null}}}', "'0900' is no id of a region"),
        ('{"derpMap": {"Regions": {"hk": null}}}', "'hk' is no id of a region"),
        ('{"derpMap": {"Regions": {"900": 1}}}', "a region is an object or null"),
        ('{"derpMap": {"Regions": {"900": {"Nodes": [1]}}}}', "the Nodes of this region are no list"),
        ('{"derpMap": {"Regions": {"9999999999999999999999": null}}}', "is no id of a region"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_changed_is_named_with_its_place(text: str, words: str) -> None:
    with pytest.raises(NotHujson, match=words) as error:
        read_policy(text)
    assert str(error.value).startswith("line 1, column ")


def test_a_key_twice_elsewhere_is_not_our_business() -> None:
    assert read_policy('{"a": {"b": 1, "B": 2}, "derpMap": null}').regions == {}


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        (
            strangers(900, "tok", "tok.example.net"),
            "Region 900 in the policy of example.com is 'tok' at tok.example.net, which is not hk1: "
            "give hk1 another id, or take that region out of the policy.",
        ),
        (
            strangers(900, "hk", "hk1.example.org", "hk9.example.net"),
            "Region 900 in the policy of example.com has nodes of others, too: 900b at hk9.example.net. "
            "They would be lost: give hk1 another id, or take these nodes out of the policy.",
        ),
        (
            strangers(950, "hk", "tok.example.net"),
            "The code hk of hk1 is taken by region 950 ('hk' at tok.example.net) in the policy of "
            "example.com: give hk1 another one.",
        ),
        (
            strangers(950, "tok", "hk1.example.org", "tok.example.net"),
            "hk1.example.org is in the map already, as region 950 ('tok' at hk1.example.org, "
            "tok.example.net) in the policy of example.com: take it out there.",
        ),
        (strangers(950, "tok", "tok.example.net"), ""),
        (strangers(950, "hk-old", "hk1.example.org"), ""),
    ],
)
def test_a_region_of_somebody_else_is_refused_by_both_names(region: dict[str, object], sentence: str) -> None:
    assert refusals(policy_with(region), "hk1") == [sentence] * bool(sentence)


def test_a_host_has_its_former_ids_too() -> None:
    text = policy_with(of_host(SITE, "hk1"), strangers(950, "old", "hk1.example.org"))
    regions, all_hosts = read_policy(text).regions, hosts(SITE, "hk1", "sg1")
    assert [ids_of(regions, all_hosts, host) for host in all_hosts] == [[900, 950], []]
    assert hosts_in(regions, all_hosts) == hosts(SITE, "hk1")


def left(before: str, after: str, *not_live: int) -> str:
    return too_few_left(read_policy(before), read_policy(after), not_live, WHERE)


def test_clients_need_two_live_regions_when_they_have_no_others() -> None:
    both = [of_host(SITE, "hk1"), of_host(SITE, "sg1")]
    omitting = policy_with(*both, omit=True)
    assert left(BARE, omitting) == ""
    assert left(policy_with(*both), policy_with(both[0])) == ""
    alone = left(BARE, omitting, 901)
    assert alone.startswith("OmitDefaultRegions would leave clients of the policy of example.com with only ")
    assert "only region 900 that is live. They need 2" in alone
    assert alone.endswith("Leave derpmap.omit_default_regions out of the site file until then.")
    empty = policy_with({**both[0], "Nodes": []}, omit=True)
    lost = left(omitting, empty)
    assert "with no region that is live" in lost and "site file" not in lost


def test_too_few_that_are_there_already_may_be_repaired() -> None:
    """Another controller has proved them, or one is down."""
    both = [of_host(SITE, "hk1"), of_host(SITE, "sg1")]
    moved = {**both[0], "Nodes": [{**both[0]["Nodes"][0], "DERPPort": 8443}]}
    before, after = policy_with(*both, omit=True), policy_with(moved, both[1], omit=True)
    assert left(before, after, 901) == left(before, before, 900, 901) == ""
    assert "with only region 901" in left(before, policy_with(both[1], omit=True))


def test_chosen_official_regions_enter_where_clients_have_no_others() -> None:
    before = read_policy(POLICY.replace('"DerpMap": {', '"DerpMap": {"OmitDefaultRegions": true,'))
    after = with_official(before, taking(SITE, 4, 7))
    assert list(after.regions) == [12, 950, 4, 7]
    assert hostnames(after.regions[4]) == hostnames(read_policy(policy_with(FRA)).regions[4])
    assert with_official(after, taking(SITE, 4, 7)).text == after.text
    assert list(with_official(after, taking(SITE, 7)).regions) == [12, 950, 7]
    assert with_official(after, taking(SITE)).text == before.text
    assert with_official(after, SITE).text == after.text  # without a choice it is somebody else's
    assert left(BARE, after.text) == ""


def test_none_enters_a_policy_that_has_all_of_them() -> None:
    assert with_official(read_policy(POLICY), taking(SITE, 4)).text == POLICY
    after = with_official(read_policy(policy_with(FRA)), taking(SITE))
    assert after.regions == {}


@pytest.mark.parametrize(
    ("there", "who"),
    [
        ('{"4": null}', "region 4 (null)"),
        ('{"4": {"RegionCode": "fra", "Nodes": [{"HostName": "a.ex"}]}}', "region 4 ('fra' at a.ex)"),
        ('{"910": {"RegionCode": "fra", "Nodes": []}}', "region 910 ('fra' at )"),
    ],
)
def test_what_is_in_the_way_of_an_official_region_is_named(there: str, who: str) -> None:
    text = f'{{"derpMap": {{"Regions": {there}}}}}'
    found = [*filter(None, pure.refusals(read_policy(text), taking(SITE, 4), [], {}, WHERE))]
    assert found == [
        f"The official region 4 (fra) is in the way of {who} in {WHERE}: take other regions "
        "(invoke official --take CODE), or take that one out there."
    ]


def test_the_changes_are_named() -> None:
    regions = (of_host(SITE, "hk1", RegionName="old"), strangers(950, "t", "t.example"))
    before = read_policy(policy_with(*regions))
    after = without_regions(with_regions(before, hosts(SITE, "hk1", "sg1"), omit=True), [950])
    assert pure.changes(before, after) == [
        "region 900 changed",
        "region 901 added",
        "region 950 removed",
        "OmitDefaultRegions set",
    ]
