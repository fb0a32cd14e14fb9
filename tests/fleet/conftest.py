"""A fleet whose report and records are the test's own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from engine.report import Report
from fleet.shared.fleet import Fleet
from tests.fleet.generations import SITE


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def fleet(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fleet:
    monkeypatch.setattr("fleet.shared.records.RUNS", tmp_path)
    return Fleet(SITE, Report(console=Console(file=shown, width=400)))
