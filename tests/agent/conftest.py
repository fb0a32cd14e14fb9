"""Every CPython at hand, from the agent's floor (3.6) up, and a stage to run it on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.agent.driver import Agent, fakes
from tests.support.sshd import Sshd

FOUND = sorted(
    {*Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3"), *Path("/usr/bin").glob("python3")}
)


def _version(python: Path) -> tuple[int, ...]:
    out = subprocess.run(
        [str(python), "-I", "-c", "import sys; print(*sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(map(int, out.stdout.split()))


# By major and minor version; of two with the same, Debian's.
PYTHONS = {
    ".".join(map(str, version)): str(python) for python in FOUND if (version := _version(python)) >= (3, 6)
}
# Debian's is what most hosts have, and it is built with optimizations, which pyenv's are not.
USUAL = "/usr/bin/python3"


@pytest.fixture(params=sorted(PYTHONS, key=lambda name: tuple(map(int, name.split(".")))))
def python(request: pytest.FixtureRequest) -> str:
    """Return each Python in turn."""
    return PYTHONS[request.param]


@pytest.fixture
def on_stage(new_sshd: Callable[..., Sshd], tmp_path: Path) -> Callable[..., Agent]:
    """Return a function that starts an agent on a fresh stage, with the given Python.

    The stage has no accounts, so that the machine's /root, where Pythons are, stays in sight.
    """
    return lambda python=USUAL, **more: Agent(
        new_sshd(accounts=(), files=fakes() | more.get("files", {})), python, tmp_path / "runs"
    )
