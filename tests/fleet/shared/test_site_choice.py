"""The choice of the site file, and the way into the lab's network and into no other."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fleet.shared import site_choice


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, argv: found.append(argv))
    monkeypatch.delenv("DERPFLEET_LAB", raising=False)
    return found


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "enter").write_text("#!/bin/sh\n")
    return path / "site.yml"


def test_the_given_file_is_chosen_or_else_the_checkouts_own_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, labs = tmp_path / "inventory" / "site.yml", folder(tmp_path / ".lab")
    monkeypatch.setattr(site_choice, "OWN", own)
    monkeypatch.setattr(site_choice, "SITE", labs)
    own.parent.mkdir()
    monkeypatch.chdir(own.parent)
    assert site_choice.chosen("") == Path("site.yml")
    labs.touch()
    assert site_choice.chosen("") == labs
    assert site_choice.chosen("nowhere.yml") == Path("nowhere.yml")
    own.touch()
    assert site_choice.chosen("") == Path("site.yml")


def test_a_program_beside_a_site_file_is_not_run(tmp_path: Path, started: list[list[str]]) -> None:
    site_choice.enter_network_of(folder(tmp_path / "sent"))
    assert started == []


def test_the_labs_own_is_run_once(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = folder(tmp_path / ".lab")
    monkeypatch.setattr(site_choice, "ROOT", site.parent)
    site_choice.enter_network_of(site)
    [[enter, python, *_, checkout], words] = [started[0][: -len(sys.argv)], started[0][-len(sys.argv) :]]
    assert (enter, python, checkout, words) == (
        str(site.parent / "enter"),
        sys.executable,
        str(tmp_path),
        sys.argv,
    )
    monkeypatch.setenv("DERPFLEET_LAB", str(site.parent))
    site_choice.enter_network_of(site)
    assert len(started) == 1
