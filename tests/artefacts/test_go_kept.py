"""The name under which a Go program is kept: everything that decides its bytes is in it."""

from __future__ import annotations

import platform
import tarfile
from pathlib import Path

import pytest

from artefacts import go
from artefacts.binary import build_binary
from artefacts.programs import DERPER


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


def test_a_program_for_another_machine_is_kept_beside_that_for_this_one(tmp_path: Path) -> None:
    here = go.built_in(tmp_path, cache=tmp_path)
    assert go.built_in(tmp_path, cache=tmp_path, arch=platform.machine()) == here
    assert go.built_in(tmp_path, cache=tmp_path, arch="riscv64") != here


GO = """#!/bin/sh
echo "$GOARCH $GOPROXY $GOFLAGS $*" >>LOG
for word; do [ "$before" != -o ] || { mkdir -p "$word"; echo elf >"$word/derper"; }; before=$word; done
"""


def test_derper_is_built_for_the_hosts_machine_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Go toolchain is a stand-in that writes down how it is called."""
    program, log = tmp_path / "go", tmp_path / "log"
    program.write_text(GO.replace("LOG", str(log)))
    program.chmod(0o755)
    monkeypatch.setattr(go, "toolchain", lambda **_: program)
    monkeypatch.setenv("GOPROXY", "https://mirror.example.org,direct")
    made = [
        build_binary(DERPER, arch, cache=tmp_path / "cache", progress=lambda _: None)
        for arch in ("aarch64", "x86_64", "aarch64")
    ]
    calls = [line.split() for line in log.read_text().splitlines()]
    assert [(words[0], words[4]) for words in calls] == [
        ("arm64", "list"), ("arm64", "build"), ("amd64", "list"), ("amd64", "build")
    ]  # fmt: skip
    assert {words[1] for words in calls} == {"https://mirror.example.org,direct"}
    assert {words[2] for words in calls} == {"-mod=readonly"}
    assert made[0] == made[2]
    assert made[0].path != made[1].path
    with tarfile.open(made[0].path) as tar:
        [file] = tar.getmembers()
    assert (file.name, file.mode) == ("bin/derper", 0o755)


def test_go_says_where_its_modules_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default is Go's to know: without the toolchain only a set GOPROXY is known."""
    monkeypatch.delenv("GOPROXY", raising=False)
    assert go.module_sources(cache=tmp_path) == ""
    monkeypatch.setenv("GOPROXY", "https://mirror.example.org")
    assert go.module_sources(cache=tmp_path) == "https://mirror.example.org"
    monkeypatch.setattr(go, "make_once", lambda place, make: place)
    program = go.toolchain(cache=tmp_path, progress=lambda _: None)
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\n[ "$*" = "env GOPROXY" ] && echo "https://default.example.org,direct"\n')
    program.chmod(0o755)
    assert go.module_sources(cache=tmp_path) == "https://default.example.org,direct"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(go.GoError, match="broken"):
        go.module_sources(cache=tmp_path)
