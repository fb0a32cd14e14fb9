"""Releases: which wheels a host takes, what of them travels, and the same bytes each time."""

from __future__ import annotations

import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import release
from engine.facts import Facts
from engine.release import (
    CERTBOT,
    RELAY,
    Program,
    ReleaseError,
    archive,
    build_release,
    locked_for,
    marker_environment,
    unpacked,
    wheel_platforms,
)

CACHE = release.CHECKOUT / ".cache"
HERE = Facts(python=sys.version_info[:3], arch=platform.machine(), libc=platform.libc_ver())


def test_platforms_go_down_to_the_oldest_that_wheels_are_made_for() -> None:
    tags = wheel_platforms(Facts(libc=("glibc", "2.19"), arch="aarch64"))
    assert tags == ("manylinux_2_19_aarch64", "manylinux_2_18_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def test_no_glibc_no_wheels() -> None:
    with pytest.raises(ReleaseError, match="no wheels for this host's C library") as caught:
        wheel_platforms(Facts(libc=("", "")))
    assert "flavour: docker" in caught.value.next


@pytest.mark.parametrize(
    ("python", "wanted"),
    [
        ((3, 10, 13), {"pyrfc3339==2.1.0", "typing-extensions==4.16.0"}),
        ((3, 11, 2), {"pyrfc3339==2.1.1", "typing-extensions==4.16.0"}),
        ((3, 13, 0), {"pyrfc3339==2.1.1"}),
    ],
)
def test_markers_are_the_hosts_not_the_controllers(python: tuple[int, int, int], wanted: set[str]) -> None:
    lines = locked_for(release.CHECKOUT / "requirements" / "certbot.lock", marker_environment(Facts(python=python))).splitlines()
    names = {line.split(" --hash=")[0] for line in lines}
    assert {name for name in names if name.startswith(("pyrfc3339", "typing-extensions"))} == wanted
    assert not any("pywin32" in name or ";" in name for name in names)
    assert all(" --hash=sha256:" in line for line in lines)


def test_a_lock_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text("not a requirement !!\n")
    with pytest.raises(ReleaseError, match=r"x\.lock cannot be read"):
        locked_for(path, marker_environment(Facts()))


def test_what_of_a_wheel_travels(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in (
            "x/__init__.py", "x/fast.cpython-311-x86_64-linux-gnu.so", "x/fast.pyx", "x/x.pyi", "x/_y.h", "x/tests/test_x.py", "x/data/",
            "tests/__init__.py", "six.py", "x-1.dist-info/METADATA", "x-1.data/purelib/x/extra.py", "x-1.data/scripts/x",
            "x-1.data/headers/x.h",
        ):  # fmt: skip
            wheel.writestr(name, name)
    assert unpacked(path) == {
        "x/__init__.py": b"x/__init__.py",
        "x/fast.cpython-311-x86_64-linux-gnu.so": b"x/fast.cpython-311-x86_64-linux-gnu.so",
        "tests/__init__.py": b"tests/__init__.py",
        "six.py": b"six.py",
        "x-1.dist-info/METADATA": b"x-1.dist-info/METADATA",
        "x/extra.py": b"x-1.data/purelib/x/extra.py",
    }


def test_an_archive_depends_on_nothing_but_its_files() -> None:
    assert archive({"b": b"2", "a/c": b"1"}) == archive({"a/c": b"1", "b": b"2"})
    with tarfile.open(fileobj=io.BytesIO(archive({"a/c": b"1"}))) as tar:
        (info,) = tar.getmembers()
        assert (info.name, info.mode, info.uid, info.gid, info.mtime, info.uname) == ("a/c", 0o644, 0, 0, 0, "")


def test_a_release_is_made_once_and_changes_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "none.lock").write_text("")
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "__init__.py").write_text("print('one')")
    monkeypatch.setattr(release, "CHECKOUT", tmp_path)
    monkeypatch.setattr(release, "_download", lambda *_: None)
    said: list[str] = []
    program = Program(name="hello", lock="none.lock", packages=("hello",), main="import hello\n")

    def build(facts: Facts = HERE) -> release.Release:
        return build_release(program, facts, cache=tmp_path / "cache", progress=said.append)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: build(), range(4))
    assert others == [first] * 3
    assert len(said) == 1
    assert build(Facts(python=(3, 12, 1))).sha256 == first.sha256  # another key, the same bytes
    (tmp_path / "hello" / "__init__.py").write_text("print('two')")
    second = build()
    assert second.id != first.id
    folder = tmp_path / "unpacked"
    with tarfile.open(second.path) as tar:
        tar.extractall(folder, filter="data")
    assert subprocess.run([sys.executable, "-I", str(folder)], capture_output=True, text=True, check=True).stdout == "two\n"


def test_pip_that_finds_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ReleaseError, match=r"pip found no wheels for Python 3\.11 on manylinux_2_36_x86_64") as caught:
        build_release(RELAY, Facts(python=(3, 11, 99)), cache=tmp_path)
    assert "No matching distribution" in caught.value.why
    assert not list(tmp_path.rglob("*.tar.gz"))


@pytest.mark.parametrize(("program", "words"), [(RELAY, "-version"), (CERTBOT, "--version")], ids=["relay", "certbot"])
def test_the_real_releases_run_on_a_bare_python(program: Program, words: str, tmp_path: Path) -> None:
    made = build_release(program, HERE, cache=CACHE)
    with tarfile.open(made.path) as tar:
        tar.extractall(tmp_path, filter="data")
    done = subprocess.run([sys.executable, "-I", "-S", str(tmp_path), words], capture_output=True, text=True, check=True)
    assert done.stdout.strip().split()[-1][0].isdigit()
