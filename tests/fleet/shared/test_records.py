"""Where records are kept."""

from __future__ import annotations

from pathlib import Path

from fleet.shared import records
from inventory.checkout import CHECKOUT
from inventory.model import Host, Region, Site


def test_the_records_of_two_sites_are_kept_apart(tmp_path: Path) -> None:
    host = Host(name="hk1", domain="hk1.example.org", region=Region(id=901, code="hk", name="Hong Kong"))

    def kept(path: Path) -> Path:
        return records.folder_of(
            Site(path=str(path), hosts={"hk1": host}, known_hosts=str(tmp_path / "known_hosts"))
        )

    assert kept(CHECKOUT / "inventory/site.yml") == CHECKOUT / ".runs/inventory/site.yml"
    assert kept(CHECKOUT / "site.yml") != kept(CHECKOUT / "other.yml")
    assert kept(tmp_path / "site.yml").is_relative_to(CHECKOUT / ".runs")
