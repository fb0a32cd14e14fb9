"""Chosen regions of Tailscale in headscale's map file; all that is somebody else's stays."""

from __future__ import annotations

import pytest

from control.derpmap import yaml_map
from control.headscale.facts import HeadscaleRefused
from control.headscale.reader import parse_map
from control.headscale.transaction import resources, warnings
from engine.health import Http
from inventory.model import Site
from inventory.official import Official
from tests.control.headscale_host import CONFIG, MAP, facts, made, site_of
from tests.support.official import FRA, TAILSCALES, pinned, region

OFFICE = MAP.replace("  1: null  # not this one of Tailscale's\n", "")
NO_URLS = CONFIG.replace("    - https://controlplane.tailscale.com/derpmap/default\n", "").replace(
    "  urls:\n", "  urls: []\n"
)


def taking(*ids: int) -> Site:
    return site_of().model_copy(update={"official": Official.model_validate(pinned(*ids))})


def test_chosen_regions_come_in_and_stay_as_they_are() -> None:
    map_file, config, service = made(taking(4, 7), map=OFFICE)
    text = map_file.content.decode()
    assert parse_map(text).keys() == {4, 7, 900, 910}
    assert parse_map(text)[4] == {
        "regionid": 4, "regioncode": "fra", "regionname": "Fra",
        "nodes": [{"name": "4a", "regionid": 4, "hostname": "derp4.tailscale.com", "ipv4": "203.0.113.9"}],
    }  # fmt: skip
    served = service.healthy[1]
    assert isinstance(served, Http) and {'"4":', '"derp4.tailscale.com"', '"900":'} <= set(served.contains)
    again, *_ = made(taking(4, 7), map=text, config=config.content.decode())
    assert again.content == map_file.content


def test_a_region_that_is_no_longer_chosen_goes_and_others_stay_to_the_byte() -> None:
    before = made(taking(4, 7), map=OFFICE)[0].content.decode()
    after = made(taking(7), map=before)[0].content.decode()
    assert parse_map(after).keys() == {7, 900, 910}
    assert made(taking(), map=before)[0].content == made(site_of(), map=OFFICE)[0].content


def test_without_the_file_of_the_choice_nothing_below_900_is_touched() -> None:
    before = made(taking(4), map=OFFICE)[0].content.decode()
    assert made(site_of(), map=before)[0].content.decode() == before


def test_a_region_of_that_id_with_other_nodes_is_somebody_elses() -> None:
    theirs = made(taking(4), map=OFFICE)[0].content.decode()
    theirs = theirs.replace("derp4.tailscale.com", "derp.example.net")
    assert parse_map(made(taking(7), map=theirs)[0].content.decode()).keys() == {4, 7, 900, 910}
    with pytest.raises(HeadscaleRefused) as error:
        made(taking(4), map=theirs)
    assert "official region 4 (fra) is in the way of region 4 ('fra' at derp.example.net)" in error.value.why


@pytest.mark.parametrize(
    ("taken", "seen", "who"),
    [
        ((1,), {"map": MAP}, "region 1 (null) in /etc/headscale/derp.yaml"),
        ((4,), {"map": OFFICE.replace("office", "fra")}, "region 910 ('fra' at derp.example.com)"),
        ((4,), {"config": CONFIG.replace("paths: []", "paths: [/etc/headscale/more.yaml]"),
                "/etc/headscale/more.yaml": "regions: {4: {regionid: 4, regioncode: fra, nodes: "
                "[{name: 4a, regionid: 4, hostname: derp4.tailscale.com}]}}"},
         "region 4 ('fra' at derp4.tailscale.com) in /etc/headscale/more.yaml"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_named_and_nothing_is_written(
    taken: tuple[int, ...], seen: dict[str, str], who: str
) -> None:
    site = taking(*taken)
    with pytest.raises(HeadscaleRefused) as error:
        resources(site, facts(**{"map": OFFICE, **seen}), [site.hosts["hk1"]])
    assert f"is in the way of {who}" in error.value.why


def test_a_headscale_that_has_all_of_them_anyway_is_warned_of() -> None:
    words = "so the choice of `invoke official` changes nothing"
    assert any(words in one for one in warnings(taking(4), facts(map=OFFICE)))
    assert not any(words in one for one in warnings(taking(), facts(map=OFFICE)))
    assert not any(words in one for one in warnings(taking(4), facts(map=OFFICE, config=NO_URLS)))


def test_a_changed_region_restarts_headscale_and_an_added_one_does_not() -> None:
    ticking = NO_URLS.replace("update_frequency: 3h", "update_frequency: 5s")
    _, config, service = made(taking(4), map=OFFICE, config=ticking)
    assert service.restart_on == (config.id,)
    before = made(taking(4), map=OFFICE)[0].content.decode()
    there = region(4, "fra", "derp4.tailscale.com", ipv4="203.0.113.4")
    moved = {"Regions": {**TAILSCALES["Regions"], "4": there}}
    site = site_of().model_copy(update={"official": Official.model_validate(pinned(4, map=moved))})
    map_file, config, service = made(site, map=before, config=ticking)
    assert service.restart_on == (map_file.id, config.id)
    map_file, config, service = made(taking(), map=before, config=ticking)
    assert service.restart_on == (map_file.id, config.id)


def test_the_text_to_paste_for_a_headscale_has_them() -> None:
    assert parse_map(yaml_map(taking(4))).keys() == {4, 900, 901}
    assert FRA["RegionCode"] in yaml_map(taking(4))
