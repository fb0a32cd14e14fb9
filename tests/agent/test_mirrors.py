"""A mirror of packages that is honest or lies, with real apt and real signatures."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

FILES = str(Path(__file__).parent.parent.parent / "files")
pytestmark = pytest.mark.skipif(not shutil.which("apt-get"), reason="the host's family has no apt")
PACKAGES = "\n".join(
    [
        "Package: derpfleet-test",
        "Version: 1",
        "Architecture: all",
        "Maintainer: x <x@example.org>",
        "Filename: pool/x.deb",
        "Size: 1",
        f"SHA256: {hashlib.sha256(b'x').hexdigest()}",
        "Description: x",
        "",
    ]
)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the agent's modules `apt` and `tools`."""
    monkeypatch.syspath_prepend(FILES)
    # the folder of the agent is in the path on hosts only
    from agent import apt, tools  # type: ignore[import-not-found]

    yield apt, tools
    for name in [name for name in sys.modules if name == "agent" or name.startswith("agent.")]:
        del sys.modules[name]


def gpg(home: Path, *words: str) -> bytes:
    argv = ["gpg", "--homedir", str(home), "--batch", "--yes", "--quiet", "--passphrase", "", *words]
    return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.fixture
def key(tmp_path: Path) -> Iterator[Path]:
    """Make the distribution's key, and yield the folder with the private one."""
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    gpg(home, "--quick-generate-key", "distribution@example.org", "ed25519", "sign", "never")
    (tmp_path / "key.gpg").write_bytes(gpg(home, "--export"))
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def serve(tmp_path: Path, home: Path, packages: str = PACKAGES) -> Path:
    """Lay out a mirror with a signed index, and return its folder."""
    folder = tmp_path / "mirror"
    index = folder / "dists/stable/main/binary-all/Packages"
    index.parent.mkdir(parents=True)
    index.write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    release = (
        "Origin: x\nSuite: stable\nCodename: stable\nArchitectures: all amd64 arm64\nComponents: main\n"
        "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
        f"SHA256:\n {digest} {len(packages)} main/binary-all/Packages\n"
    )
    (folder / "dists/stable/Release").write_text(release)
    sign(folder, home)
    return folder


def sign(folder: Path, home: Path) -> None:
    place = folder / "dists/stable"
    gpg(home, "--output", str(place / "InRelease"), "--clearsign", str(place / "Release"))


def refresh(agent: Any, tmp_path: Path) -> None:
    """Read the mirror's index. Raises the agent's Failed."""
    apt = agent[0].Apt("")
    line = f"deb [signed-by={tmp_path}/key.gpg] file:{tmp_path}/mirror stable main\n"
    apt.use(str(tmp_path / "folder"), line)
    apt.options += ("-o", "APT::Sandbox::User=root")  # pytest's folders are private
    apt.refresh()


def test_a_mirror_that_is_signed_by_the_distribution_is_used(
    agent: Any, tmp_path: Path, key: Path
) -> None:
    serve(tmp_path, key)
    refresh(agent, tmp_path)
    assert [*(tmp_path / "folder/lists").glob("*Packages*")]


def changed(folder: Path, home: Path) -> None:
    signed = folder / "dists/stable/InRelease"
    signed.write_text(signed.read_text().replace("Origin: x", "Origin: y"))


def by_another(folder: Path, home: Path) -> None:
    other = home.with_name("other")
    other.mkdir(mode=0o700)
    gpg(other, "--quick-generate-key", "other@example.org", "ed25519", "sign", "never")
    sign(folder, other)
    subprocess.run(["gpgconf", "--homedir", str(other), "--kill", "all"], check=False)


def unsigned(folder: Path, home: Path) -> None:
    (folder / "dists/stable/InRelease").unlink()


def another_index(folder: Path, home: Path) -> None:
    index = folder / "dists/stable/main/binary-all/Packages"
    index.write_text(PACKAGES.replace("Version: 1", "Version: 2"))


@pytest.mark.parametrize("lie", [changed, by_another, unsigned, another_index])
def test_a_mirror_that_lies_is_told_from_one_that_is_away(
    agent: Any, tmp_path: Path, key: Path, lie: Callable[[Path, Path], None]
) -> None:
    apt, tools = agent
    lie(serve(tmp_path, key), key)
    with pytest.raises(tools.Failed) as error:
        refresh(agent, tmp_path)
    assert any(words in error.value.why for words in apt.Apt.LIES), error.value.why


def test_a_mirror_that_is_away_does_not_lie(agent: Any, tmp_path: Path, key: Path) -> None:
    apt, tools = agent
    with pytest.raises(tools.Failed) as error:
        refresh(agent, tmp_path)
    assert not any(words in error.value.why for words in apt.Apt.LIES), error.value.why
