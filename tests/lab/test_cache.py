from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from lab import golang
from lab.cache import made_once


def test_it_is_made_once_however_many_ask(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(partial: Path) -> None:
        made.append(partial)
        partial.mkdir()
        time.sleep(0.05)
        (partial / "done").touch()

    home = tmp_path / "new" / "thing"
    threads = [threading.Thread(target=made_once, args=(home, make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (home / "done").exists()
    assert len(made) == 1


def test_what_failed_is_not_taken_for_made_and_does_not_stand_in_the_way(tmp_path: Path) -> None:
    home = tmp_path / "thing"

    def fail(partial: Path) -> None:
        (partial / "half").mkdir(parents=True)
        raise RuntimeError

    def succeed(partial: Path) -> None:
        partial.mkdir()

    with pytest.raises(RuntimeError):
        made_once(home, fail)
    assert not home.exists()
    assert list(made_once(home, succeed).iterdir()) == []


def test_programs_are_kept_by_everything_that_decides_their_bytes(tmp_path: Path) -> None:
    source, cache = tmp_path / "thing", tmp_path / "cache"
    source.mkdir()
    (source / "go.mod").write_text("module thing\n")
    (source / "go.sum").write_text("a\n")

    def place(**packages: tuple[str, ...]) -> Path:
        return golang.built_in(source, cache=cache, **packages)

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
    first = golang.built_in(tmp_path, cache=tmp_path)
    monkeypatch.setattr(golang, "FLAGS", (*golang.FLAGS, "-race"))
    assert golang.built_in(tmp_path, cache=tmp_path) != first
