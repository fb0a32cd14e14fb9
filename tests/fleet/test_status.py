"""A status keeps each proof, writes its files whole, and tells the webhook what has changed."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from control.served import Unknown
from engine.report import Report
from engine.rollout.progress import RolloutProgress
from fleet import status
from fleet.shared import past
from fleet.shared.errors import CannotWrite
from fleet.shared.fleet import Fleet
from fleet.shared.host_status import HostStatus
from inventory.metrics_access import MetricsAccess
from inventory.model import Host, Ports
from probe.alerts import Alert, Seen
from probe.target import Target
from roles.relay import OutOfService
from tests.control.test_headscale import site_of
from tests.probe.test_page import BROKEN, PROVED


class World:
    """Two hosts. `broken`, `withdrawn`: names of some. `seen`: what the webhook was told about."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken, self.withdrawn, self.seen = set[str](), set[str](), list[Seen]()
        self.shown = io.StringIO()
        self.fleet = Fleet(site_of(), Report(console=Console(file=self.shown, width=400)))
        self.hosts = list(self.fleet.site.hosts.values())
        server = SimpleNamespace(served=lambda: Unknown("not asked"))
        monkeypatch.setattr(Fleet, "runs", folder / "runs")
        monkeypatch.setattr(status, "control_server", lambda _: server)
        monkeypatch.setattr(
            status, "targets", lambda _, hosts: [Target(name=one.name, domain="x") for one in hosts]
        )
        monkeypatch.setattr(status, "climb", self.climb)
        monkeypatch.setattr(status, "read_status", self.read)
        monkeypatch.setattr(status, "measure_all", lambda _: {})
        monkeypatch.setattr(status, "notify", self.notify)
        monkeypatch.setattr(status, "last_progress", lambda _: RolloutProgress.SILENT)

    def climb(self, _: Fleet, hosts: Sequence[Host], __: Any) -> list[Any]:
        return [BROKEN if host.name in self.broken else PROVED for host in hosts]

    def read(self, _: Fleet, host: Host, __: Any) -> HostStatus:
        state = OutOfService.WITHDRAWN if host.name in self.withdrawn else None
        return HostStatus(state=state, clients=3)

    def notify(self, _: Fleet, seen: Sequence[Seen]) -> list[Alert]:
        self.seen = list(seen)
        return [Alert(one.host, one.ok, one.words) for one in seen if not one.ok]

    def status(self, **more: Any) -> int:
        return status.status(self.fleet, self.hosts, **more)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_each_proof_is_kept_but_not_that_of_a_withdrawn_relay(world: World) -> None:
    world.broken = world.withdrawn = {"sg1"}
    assert world.status() == 0
    assert [one.ok for one in past.entries(world.fleet, "hk1")] == [True]
    assert past.entries(world.fleet, "sg1") == []
    world.withdrawn = set()
    assert world.status() == 1
    assert [one.broken for one in past.entries(world.fleet, "sg1")] == ["probe"]


def test_the_table_says_since_when(world: World) -> None:
    world.status()
    assert "2026-11-22 10:00" in world.shown.getvalue()


def test_the_metrics_replace_the_former_ones_as_a_whole(world: World, tmp_path: Path) -> None:
    path = tmp_path / "derpfleet.prom"
    path.write_text("old")
    former = path.stat().st_ino
    with path.open() as reader:
        world.broken = {"sg1"}
        assert world.status(textfile=path) == 1
        assert reader.read() == "old"
    assert path.stat().st_ino != former
    assert 'derpfleet_proved{host="sg1",region="sg"} 0' in path.read_text()
    assert 'derpfleet_rollout_state{state="silent"} 1' in path.read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["derpfleet.prom", "runs"]


def test_what_prometheus_can_scrape(world: World, tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    world.status(targets_file=path)
    assert json.loads(path.read_text()) == []
    assert "no host has metrics.allow" in world.shown.getvalue()
    access = {"ports": Ports(metrics=9411), "metrics": MetricsAccess(allow=("100.64.0.0/10",))}
    world.hosts = [
        host.model_copy(update=access if host.name == "hk1" else {}) for host in world.hosts
    ]
    world.status(targets_file=path)
    labels = {"host": "hk1", "region": "hk", "flavour": "python"}
    assert json.loads(path.read_text()) == [{"targets": ["hk1.example.org:9411"], "labels": labels}]


def test_a_place_that_cannot_be_written_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="cannot be written") as error:
        world.status(textfile=tmp_path / "nowhere" / "x.prom")
    assert "nowhere/x.prom" in error.value.what


def test_the_webhook_is_told_only_when_it_is_asked_for(world: World) -> None:
    world.broken, world.withdrawn = {"sg1", "hk1"}, {"hk1"}
    assert world.status() == 1
    assert world.seen == []
    assert world.status(alert=True) == 1
    assert [(one.host, one.ok) for one in world.seen] == [("hk1", True), ("sg1", False)]
    assert "sg1        told         sg1 is BROKEN: /derp/probe" in world.shown.getvalue()


def test_a_page_has_the_days_of_each_relay(world: World, tmp_path: Path) -> None:
    world.status(html=tmp_path / "status.html")
    assert (tmp_path / "status.html").read_text().count('class="days"') == 2
