"""A fleet whose report and records are the test's own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from engine.report import Report
from engine.rollout.machine import begin
from fleet.rollout.ledger import new_head
from fleet.rollout.under_way import UnderWay
from fleet.shared.fleet import Fleet
from inventory.rollout import RolloutPolicy
from tests.control.test_headscale import site_of
from tests.fleet.generations import SITE


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def fleet(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    return Fleet(SITE, Report(console=Console(file=shown, width=400)))


@pytest.fixture
def under_way(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> UnderWay:
    """A rollout of hk1 and sg1, with nothing prepared, whose waves are watched for 20 s."""
    monkeypatch.setattr(Fleet, "runs", tmp_path)
    fleet = Fleet(site_of(), Report(console=Console(file=shown, width=300)))
    policy = RolloutPolicy(soak_s=20)
    return UnderWay(fleet, new_head(["hk1", "sg1"], policy), begin(["hk1", "sg1"], policy))
