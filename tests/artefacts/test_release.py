"""Releases: the wheels that a host accepts, the files in them, and the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from artefacts import release
from artefacts.programs import CERTBOT, RELAY, Artefact
from artefacts.release import (
    ReleaseError,
    archive,
    build_release,
    locked_for,
    marker_environment,
    unpacked,
    wheel_platforms,
)
from engine.cache import CacheError
from engine.facts import Facts
from engine.plan import sha256
from inventory.checkout import CACHE, CHECKOUT
from tests.support.facts import DEBIAN_12
from tests.support.releases import unpack

HERE = replace(DEBIAN_12, python=sys.version_info[:3], arch=platform.machine(), libc=platform.libc_ver())


def test_platforms_go_down_to_the_oldest_that_wheels_are_made_for() -> None:
    tags = wheel_platforms(replace(DEBIAN_12, libc=("glibc", "2.19"), arch="aarch64"))
    assert tags == (
        "manylinux_2_19_aarch64",
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    )


def test_no_glibc_no_wheels() -> None:
    with pytest.raises(ReleaseError, match="no wheels for this host's C library") as caught:
        wheel_platforms(replace(DEBIAN_12, libc=("", "")))
    assert "flavour: docker" in caught.value.next


@pytest.mark.parametrize("version", ["2.9999999", "2", "2.0", "3.1", "", "2.x", "2.201"])
def test_a_version_of_glibc_that_cannot_be_is_refused(version: str) -> None:
    """Each minor version is a tag of its own: ten million of them are a gigabyte."""
    with pytest.raises(ReleaseError, match="no wheels for this host's C library"):
        wheel_platforms(replace(DEBIAN_12, libc=("glibc", version)))


@pytest.mark.parametrize(
    ("python", "wanted"),
    [
        ((3, 10, 13), {"pyrfc3339==2.1.0", "typing-extensions==4.16.0"}),
        ((3, 11, 2), {"pyrfc3339==2.1.1", "typing-extensions==4.16.0"}),
        ((3, 13, 0), {"pyrfc3339==2.1.1"}),
    ],
)
def test_markers_are_the_hosts_not_the_controllers(python: tuple[int, int, int], wanted: set[str]) -> None:
    environment = marker_environment(replace(DEBIAN_12, python=python))
    lines = locked_for(CHECKOUT / "requirements" / "certbot.lock", environment).splitlines()
    names = {line.split(" --hash=")[0] for line in lines}
    assert {name for name in names if name.startswith(("pyrfc3339", "typing-extensions"))} == wanted
    assert not any("pywin32" in name or ";" in name for name in names)
    assert all(" --hash=sha256:" in line for line in lines)


def test_a_file_that_is_not_a_lock_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text("not a requirement !!\n")
    with pytest.raises(ReleaseError, match=r"x\.lock cannot be read"):
        locked_for(path, marker_environment(DEBIAN_12))


def test_which_files_of_a_wheel_are_sent(tmp_path: Path) -> None:
    path = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in (
            "x/__init__.py", "x/fast.cpython-311-x86_64-linux-gnu.so", "x/fast.pyx", "x/x.pyi", "x/_y.h",
            "x/tests/test_x.py", "x/data/", "tests/__init__.py", "six.py", "x-1.dist-info/METADATA",
            "x-1.data/purelib/x/extra.py", "x-1.data/scripts/x", "x-1.data/headers/x.h",
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
        assert (info.name, info.mode, info.uid, info.gid, info.mtime, info.uname) == (
            "a/c",
            0o644,
            0,
            0,
            0,
            "",
        )


def another_run() -> None:
    release._sources.cache_clear()


def test_a_release_is_made_once_and_changes_with_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "none.lock").write_text("")
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "__init__.py").write_text("print('one')")
    monkeypatch.setattr(release, "CHECKOUT", tmp_path)
    monkeypatch.setattr(release, "_download", lambda *_: None)
    said: list[str] = []
    program = Artefact(name="hello", lock="none.lock", packages=("hello",), main="import hello\n")

    def build(facts: Facts = HERE) -> release.Release:
        return build_release(program, facts, cache=tmp_path / "cache", progress=said.append)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: build(), range(4))
    assert others == [first] * 3
    assert len(said) == 1
    # another key, the same bytes
    assert build(replace(DEBIAN_12, python=(3, 12, 1))).sha256 == first.sha256
    (tmp_path / "hello" / "__init__.py").write_text("print('two')")
    assert build() == first  # another host of the same run
    another_run()
    second = build()
    assert second.id != first.id
    folder = tmp_path / "unpacked"
    unpack(second, folder)
    assert (
        subprocess.run([sys.executable, "-I", str(folder)], capture_output=True, text=True, check=True).stdout
        == "two\n"
    )


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path, monkeypatch)


class Shelf:
    """A program that needs one wheel, and an index in place of pip's.

    `downloads` counts how often the index was asked.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.downloads, self.source = folder / "cache", 0, folder / "hello" / "__init__.py"
        self.wheel = b"PK\x05\x06" + bytes(18)  # an empty zip
        (folder / "requirements").mkdir()
        self.source.parent.mkdir()
        self.source.write_text("print('one')")
        (folder / "requirements" / "one.lock").write_text(
            f"x==1 --hash=sha256:{hashlib.sha256(self.wheel).hexdigest()}\n"
        )
        monkeypatch.setattr(release, "CHECKOUT", folder)
        monkeypatch.setattr(release, "_download", self.download)
        self.program = Artefact(name="hello", lock="one.lock", packages=("hello",), main="import hello\n")

    def download(self, folder: Path, *_: object) -> None:
        self.downloads += 1
        (folder / "x-1-py3-none-any.whl").write_bytes(self.wheel)

    def build(self, source: str, facts: Facts = HERE) -> release.Release:
        self.source.write_text(source)
        another_run()
        return build_release(self.program, facts, cache=self.cache)

    def kept(self) -> set[str]:
        return {path.name for path in (self.cache / "releases").glob("hello-*.tar.gz")}


def test_a_release_with_other_sources_has_the_same_wheels(shelf: Shelf) -> None:
    first, second = shelf.build("one"), shelf.build("two")
    assert (first.id != second.id, first.shared) == (True, second.shared)
    sums = f"{sha256(first.shared[0])}  {first.shared[0].name}\n"
    with tarfile.open(first.path) as tar:
        named = tar.extractfile("wheels.sha256")
        assert named and named.read() == sums.encode()


def test_programs_of_a_host_share_wheels() -> None:
    """cryptography is two thirds of each of them."""
    relay, certbot = (build_release(program, HERE, cache=CACHE) for program in (RELAY, CERTBOT))
    sums = [{sha256(path): path.stat().st_size for path in one.shared} for one in (relay, certbot)]
    both = sums[0].keys() & sums[1].keys()
    assert sum(sums[0][each] for each in both) > sum(sums[0].values()) / 2
    assert relay.path.stat().st_size < 400_000


def test_wheels_are_fetched_once_for_a_lock_a_python_and_a_platform(shelf: Shelf) -> None:
    for source in ("one", "two", "one"):
        shelf.build(source)
    assert shelf.downloads == 1
    shelf.build("one", replace(DEBIAN_12, python=(3, 12, 1)))
    assert shelf.downloads == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x05\x06" + bytes(17) + b"x"])
def test_a_kept_wheel_that_was_damaged_is_fetched_again(shelf: Shelf, damage: bytes) -> None:
    first = shelf.build("one")
    (wheel,) = shelf.cache.glob("wheels/*/*.whl")
    wheel.write_bytes(damage)
    (wheel.parent / "stranger-1-py3-none-any.whl").write_bytes(shelf.wheel[:-1])
    shelf.build("two")
    assert (shelf.downloads, wheel.read_bytes()) == (2, shelf.wheel)
    assert [path.name for path in wheel.parent.iterdir()] == [wheel.name]
    assert shelf.build("one") == first


def test_a_kept_release_that_was_damaged_is_made_again(shelf: Shelf) -> None:
    first = shelf.build("one")
    good = first.path.read_bytes()
    first.path.write_bytes(good[:-9])
    assert shelf.build("one") == first
    assert first.path.read_bytes() == good


def test_the_name_of_a_kept_release_is_that_on_the_host(shelf: Shelf) -> None:
    made = shelf.build("one")
    assert made.path.name.endswith(f"-{made.id}.tar.gz")


def test_old_releases_go_but_for_the_last_used_and_those_that_a_run_may_be_using(shelf: Shelf) -> None:
    def idle(made: release.Release, seconds: float) -> None:
        os.utime(made.path, (time.time() - seconds,) * 2)

    made = [shelf.build(str(number)) for number in range(12)]
    assert shelf.kept() == {one.path.name for one in made}  # all of them in this hour
    for number, one in enumerate(made):
        idle(one, 7200 + number)
    shelf.build("11")  # used again
    newest = shelf.build("new")
    assert shelf.kept() == {one.path.name for one in [newest, made[11], *made[:6]]}
    for one in made[:6]:
        idle(one, 40 * 86400)
    another = shelf.build("another")
    assert shelf.kept() == {newest.path.name, made[11].path.name, another.path.name}


def test_two_that_build_at_once_fetch_once_and_leave_no_parts(shelf: Shelf) -> None:
    shelf.source.write_text("one")
    with ThreadPoolExecutor(6) as pool:
        pythons = [(3, 10, 1), (3, 11, 1), (3, 12, 1)] * 2
        made = list(
            pool.map(
                lambda python: build_release(
                    shelf.program, replace(DEBIAN_12, python=python), cache=shelf.cache
                ),
                pythons,
            )
        )
    assert shelf.downloads == 3
    assert len({one.sha256 for one in made}) == 1
    assert not list(shelf.cache.rglob("*.part"))


def test_a_cache_of_another_user_is_reported(shelf: Shelf) -> None:
    shelf.cache.write_text("no folder")
    with pytest.raises(CacheError, match="cannot read or write what it keeps") as caught:
        shelf.build("one")
    assert caught.value.where == str(shelf.cache / "releases")
    assert caught.value.next.endswith(str(shelf.cache))


def test_pip_that_finds_nothing_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        ReleaseError, match=r"pip found no wheels for Python 3\.11 on manylinux_2_36_x86_64"
    ) as caught:
        build_release(RELAY, replace(DEBIAN_12, python=(3, 11, 99)), cache=tmp_path)
    assert "No matching distribution" in caught.value.why
    assert not list(tmp_path.rglob("*.tar.gz"))


@pytest.mark.parametrize(
    ("program", "words"), [(RELAY, "-version"), (CERTBOT, "--version")], ids=["relay", "certbot"]
)
def test_the_real_releases_run_on_a_bare_python(program: Artefact, words: str, tmp_path: Path) -> None:
    made = build_release(program, HERE, cache=CACHE)
    unpack(made, tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path), words], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().split()[-1][0].isdigit()


@pytest.mark.parametrize("name", ["/etc/cron.d/x", "../x", "a/../../x", "a.data/purelib/../../x", "..\\\\x"])
def test_a_wheel_that_would_write_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        content.writestr(name, b"x")
    with pytest.raises(ReleaseError, match="would write outside"):
        unpacked(wheel)
