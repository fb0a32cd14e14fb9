"""Fixtures that several packages share. A package's own fixtures are in its own conftest."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.sshd import Sshd, start_sshd

LONGEST = (
    "tests/e2e/test_switches.py",
    "tests/e2e/test_rollout.py",
    "tests/e2e/test_broken_releases.py",
    "tests/e2e/test_firewalls.py",
    "tests/e2e/test_pairs.py",
    "tests/roles/test_on_hosts.py",
)

# no timed tests
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and its children inherit that. Programs that the
    # tests start have to get it as usual.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest in the lab: a long file that begins last makes all
    others wait for it."""
    items.sort(key=lambda item: _rank(item.nodeid))


def _rank(test: str) -> int:
    file = test.partition("::")[0]
    deploys = file.startswith(("tests/e2e/", "tests/roles/"))
    return LONGEST.index(file) if file in LONGEST else len(LONGEST) + (not deploys)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server with the usual accounts, for tests that leave nothing behind on it."""
    with start_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def new_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """`new_sshd(**options of start_sshd)` returns a server for the test alone.

    It may be called several times.
    """
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(
            start_sshd(tmp_path / f"sshd-{len(list(tmp_path.iterdir()))}", **options)
        )
