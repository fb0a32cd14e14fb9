"""A program built like the lab's, with the pinned toolchain."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from artefacts import go
from artefacts.go import GoError
from inventory.checkout import CACHE

pytestmark = pytest.mark.lab


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "go.mod").write_text("module hello\n\ngo 1.27\n")
    (folder / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n')
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return a cache for this test, which has the toolchain already."""
    shared = go.toolchain(cache=CACHE, progress=print).parents[2]
    own = tmp_path / "cache"
    (own / "go").mkdir(parents=True)
    (own / "go" / shared.name).symlink_to(shared)
    return own


def test_it_is_built_once_and_reports_its_progress(source: Path, cache: Path) -> None:
    shown: list[str] = []
    home = go.build(source, cache=cache, progress=shown.append, packages=(".",))
    assert home == go.built_in(source, cache=cache, packages=(".",))
    assert subprocess.run([home / "hello"], capture_output=True, text=True, check=True).stderr == "hello\n"
    assert "built in" in shown[-1]
    shown.clear()
    assert go.build(source, cache=cache, progress=shown.append, packages=(".",)) == home
    assert shown == []


def test_it_is_built_with_its_tags(source: Path, cache: Path) -> None:
    (source / "tags.txt").write_text("# why\nloud polite  # both\n\nunused\n")
    (source / "main.go").write_text("package main\n\nfunc main() { println(greeting) }\n")
    for name, constraint, greeting in (
        ("with", "loud && polite", "HELLO"),
        ("without", "!(loud && polite)", "hello"),
    ):
        (source / f"{name}.go").write_text(
            f'//go:build {constraint}\n\npackage main\n\nconst greeting = "{greeting}"\n'
        )
    home = go.build(source, cache=cache, progress=print, packages=(".",))
    assert subprocess.run([home / "hello"], capture_output=True, text=True, check=True).stderr == "HELLO\n"


def test_a_program_that_does_not_compile_is_reported_and_leaves_nothing(source: Path, cache: Path) -> None:
    (source / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(GoError, match="undefined: nonsense"):
        go.build(source, cache=cache, progress=print, packages=(".",))
    assert not go.built_in(source, cache=cache, packages=(".",)).exists()


def test_a_module_whose_sum_is_not_checked_in_is_refused(source: Path, cache: Path) -> None:
    (source / "go.mod").write_text("module hello\n\ngo 1.27\n\nrequire go.org/x/sys v0.49.0\n")
    (source / "main.go").write_text('package main\n\nimport _ "go.org/x/sys/cpu"\n\nfunc main() {}\n')
    with pytest.raises(GoError, match=r"missing go\.sum entry"):
        go.build(source, cache=cache, progress=print, packages=(".",))
