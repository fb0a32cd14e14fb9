"""The name under which a Go program is kept: everything that decides its bytes is in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from artefacts import go


def test_programs_are_kept_by_everything_that_decides_their_bytes(tmp_path: Path) -> None:
    source, cache = tmp_path / "thing", tmp_path / "cache"
    source.mkdir()
    (source / "go.mod").write_text("module thing\n")
    (source / "go.sum").write_text("a\n")

    def place(**packages: tuple[str, ...]) -> Path:
        return go.built_in(source, cache=cache, **packages)

    first = place()
    assert first.parent == cache / "go"
    assert first.name.startswith("thing-")
    (source / "README").write_text("of no import\n")
    assert place() == first
    assert place(packages=(".",)) != first
    (source / "go.sum").write_text("b\n")
    second = place()
    assert second != first
    (source / "main.go").write_text("package main\n")
    third = place()
    assert third not in {first, second}
    (source / "tags.txt").write_text("one\n")
    assert place() not in {first, second, third}


def test_programs_are_kept_by_how_they_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = go.built_in(tmp_path, cache=tmp_path)
    monkeypatch.setattr(go, "FLAGS", (*go.FLAGS, "-race"))
    assert go.built_in(tmp_path, cache=tmp_path) != first
