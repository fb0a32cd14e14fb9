"""The choice of official regions in the file beside the site file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import inventory
from inventory.official import Official, file_of
from tests.support.official import FRA, TAILSCALES, pinned, region
from tests.support.site_text import GOOD


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yml"
    path.write_text(GOOD)
    return path


def test_a_site_without_that_file_takes_none(site: Path) -> None:
    assert inventory.load(site).official is None


def test_the_choice_is_read_and_written_again_as_it_is(site: Path) -> None:
    file_of(site).write_text(json.dumps(pinned(4, 1)))
    found = inventory.load(site).official
    assert found and [one.code for one in found.chosen.values()] == ["nyc", "fra"]
    file_of(site).write_text(found.text())
    assert inventory.load(site).official == found
    assert file_of(site).name == "site.official.json"


def test_regions_of_others_in_the_map_cannot_be_taken(site: Path) -> None:
    """An id of 900 and more is no official one, whatever the map says."""
    map = {"Regions": {**TAILSCALES["Regions"], "900": region(900, "x", "x.example.org"), "5": None}}
    found = Official.model_validate(pinned(4, map=map))
    assert sorted(found.regions) == [1, 4, 7]
    file_of(site).write_text(json.dumps(pinned(900, map=map)))
    with pytest.raises(inventory.SiteError) as error:
        inventory.load(site)
    assert "taken: there is no region 900 in its map" in error.value.why


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is no JSON"),
        ("[]", "Input should be"),
        (json.dumps({"map": {}}), "map: Regions: Field required"),
        (json.dumps({**pinned(4), "more": 1}), "more"),
        (json.dumps(pinned(5)), "there is no region 5 in its map"),
        (json.dumps(pinned(4, map={"Regions": {"4": {**FRA, "RegionCode": "hk"}}})),
         "takes hk (4), and hosts.hk1.region.code is hk as well"),
    ],
)  # fmt: skip
def test_a_wrong_choice_stops_every_verb(site: Path, content: str, why: str) -> None:
    file_of(site).write_text(content)
    with pytest.raises(inventory.SiteError) as error:
        inventory.load(site)
    assert why in error.value.why
    assert str(file_of(site)) in error.value.where
    assert "delete this file, then invoke official --take" in error.value.next  # which reads it as well


def test_the_site_file_itself_has_no_such_key(site: Path) -> None:
    choice: dict[str, Any] = {"official": pinned(4)}
    site.write_text(GOOD + json.dumps(choice)[1:-1] + "\n")
    with pytest.raises(inventory.SiteError) as error:
        inventory.load(site)
    assert "official: unknown key" in error.value.why
