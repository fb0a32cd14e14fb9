"""A rollout in which nothing changes but a region: the map gets it, and no host is cut over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from control.headscale.reader import parse_map
from engine.rollout.state import ActionKind, RolloutEvent
from fleet import rollout as verb
from fleet.rollout import wave
from fleet.shared.fleet import Fleet
from inventory.control_servers import MapFile
from inventory.model import Headscale, Host
from inventory.rollout import RolloutPolicy
from tests.engine.simulated import SimulatedHost, World
from tests.fleet.test_rollout import Desk
from tests.fleet.test_withdraw import proof

CHANGES = {
    "name": {"name": "Hong Kong"},
    "code": {"code": "hkg"},
    "id": {"id": 950},
    "place": {"latitude": 22.3, "longitude": 114.2},
}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Two relays with nothing to do, whose regions are in a map file as the site file has them."""
    world = World({"h0": SimulatedHost(changes=0), "h1": SimulatedHost(changes=0)}, RolloutPolicy())
    compared = verb._OF_SEVERAL[ActionKind.COMPARE]
    desk = Desk(tmp_path, world, monkeypatch, json_lines=False)
    monkeypatch.setitem(verb._OF_SEVERAL, ActionKind.COMPARE, compared)
    headscale = Headscale(url="https://hs.example.org", map_file=str(tmp_path / "derp.yaml"))
    desk.site = desk.site.model_copy(update={"headscale": headscale})
    assert isinstance(desk.site.control, MapFile)

    def proofs(_: Fleet, hosts: Sequence[Host], **__: Any) -> dict[str, Any]:
        return {host.name: proof(host.name, ok=True) for host in hosts}

    def compare(under_way: Any, host: Host, _: Any) -> RolloutEvent:
        return world.prepare(host.name, world.hosts[host.name])

    monkeypatch.setattr(wave, "prove_hosts", proofs)
    monkeypatch.setattr(verb, "prepare", compare)
    assert desk.begin() == 0
    assert desk.begin() == 0
    return desk


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_it_is_registered_and_a_dry_run_shows_it(desk: Desk, tmp_path: Path, change: dict[str, Any]) -> None:
    def regions() -> Any:
        return parse_map((tmp_path / "derp.yaml").read_text())

    assert set(regions()) == {900, 901}
    first = desk.site.hosts["h0"]
    region = first.region.model_copy(update=change)
    hosts = {**desk.site.hosts, "h0": first.model_copy(update={"region": region})}
    desk.site, desk.hosts = desk.site.model_copy(update={"hosts": hosts}), [*hosts.values()]
    before = regions()
    assert verb.compare(desk.fleet(), desk.hosts, RolloutPolicy()) == 10
    assert regions() == before
    assert desk.begin() == 0
    found = regions()[region.id]
    key = next(iter(change))
    assert found[f"region{key}" if f"region{key}" in found else key] == change[key]
    assert verb.compare(desk.fleet(), desk.hosts, RolloutPolicy()) == 0


def test_a_map_that_is_as_it_should_be_is_not_written(desk: Desk, tmp_path: Path) -> None:
    before = (tmp_path / "derp.yaml").stat().st_mtime_ns
    assert desk.begin() == 0
    assert (tmp_path / "derp.yaml").stat().st_mtime_ns == before
