"""`invoke init --timer` writes units that systemd takes, and never overwrites one."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from engine.report import Report
from fleet.init import timer
from fleet.shared.errors import WouldOverwrite
from inventory.checkout import CHECKOUT
from inventory.errors import DerpfleetError


@pytest.fixture
def report(shown: io.StringIO) -> Report:
    return Report(console=Console(file=shown, width=400))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "our 100% site$.yml"
    path.write_text("hosts: {}\n")
    return path


def test_the_units_are_valid_and_call_a_status(
    site: Path, report: Report, shown: io.StringIO, tmp_path: Path
) -> None:
    timer.write_timer(report, str(site), str(tmp_path / "d.prom"))
    folder = tmp_path / "config" / "systemd" / "user"
    service = (folder / "derpfleet-status.service").read_text()
    [command] = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    assert f'"status" "--site" "{tmp_path}/our 100%% site$$.yml" "--notify"' in command
    assert f'"--textfile" "{tmp_path}/d.prom"' in command
    assert f'WorkingDirectory="{CHECKOUT}"' not in service  # systemd takes no quotes off there
    assert f"WorkingDirectory={CHECKOUT}" in service
    if analyze := shutil.which("systemd-analyze"):
        units = [str(path) for path in sorted(folder.iterdir())]
        done = subprocess.run(
            [analyze, "verify", "--user", *units], capture_output=True, text=True, check=False
        )
        assert [line for line in done.stderr.splitlines() if "derpfleet" in line] == []
    assert "systemctl --user enable --now derpfleet-status.timer" in shown.getvalue()


def test_it_overwrites_nothing(site: Path, report: Report, tmp_path: Path) -> None:
    timer.write_timer(report, str(site), "")
    unit = tmp_path / "config" / "systemd" / "user" / "derpfleet-status.service"
    unit.write_text("mine")
    with pytest.raises(WouldOverwrite, match="exists already"):
        timer.write_timer(report, str(site), "")
    assert unit.read_text() == "mine"


def test_it_needs_a_site_file(site: Path, report: Report) -> None:
    with pytest.raises(DerpfleetError, match="there is no site file"):
        timer.write_timer(report, str(site.with_name("nowhere.yml")), "")
