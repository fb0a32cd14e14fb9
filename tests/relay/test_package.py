"""The relay alone: its README's flags, and the sdist and wheel as users get them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relay import __version__, flags

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_has_the_flags_as_they_are(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    monkeypatch.setenv("HOME", "/nonexistent")
    readme = (ROOT / "relay" / "README.md").read_text()
    assert readme.split("## Flags")[1].split("```\n")[1] == flags.usage(100)


def test_the_dependencies_are_the_locked_ones():
    """One list for the wheel, one for the hosts' lock."""
    declared = re.search(
        r"dependencies = \[(.*?)\]", (ROOT / "relay" / "pyproject.toml").read_text(), re.DOTALL
    )[1]
    locked = (ROOT / "requirements" / "relay.in").read_text()
    assert sorted(re.findall(r'"(.+)"', declared)) == sorted(
        line for line in locked.splitlines() if line and not line.startswith("#")
    )


@pytest.mark.lab
@pytest.mark.timeout(600)
def test_sdist_and_wheel(tmp_path):
    """Built from the sdist, installed into an empty environment, run from a directory that has no
    checkout.
    """

    def run(*argv):
        return subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    # Building leaves things behind.
    shutil.copytree(ROOT / "relay", tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "venv", "builder")
    run("builder/bin/pip", "install", "-q", "build")
    run("builder/bin/python", "-m", "build", "-o", "dist", "source")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    assert (
        wheel.name == f"derpfleet_relay-{__version__}-py3-none-any.whl"
        and sdist.name == f"derpfleet_relay-{__version__}.tar.gz"
    )
    run(sys.executable, "-m", "venv", "user")
    run("user/bin/pip", "install", "-q", str(wheel))
    assert (
        run("user/bin/python", "-I", "-m", "relay", "-version")
        == run("user/bin/derp-relay", "-version")
        == f"{__version__}\n"
    )
    assert "Examples:" in run("user/bin/derp-relay", "-h")
    assert "Log in to a DERP relay twice" in run("user/bin/python", "-I", "-m", "relay.selftest", "-h")
    installed = {path.name for path in (tmp_path / "user").glob("lib/python*/site-packages/relay/*")}
    assert {path.name for path in (ROOT / "relay").glob("*.py")} | {"py.typed"} <= installed
    (license_file,) = (tmp_path / "user").glob("lib/python*/site-packages/derpfleet_relay-*/**/LICENSE")
    assert license_file.read_text() == (ROOT / "LICENSE").read_text()
