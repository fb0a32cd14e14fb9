"""Fixtures of the proof's tests: an authority, a relay, and a relay that admits no client, each
started once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from artefacts import go
from lab.programs import DERPER
from tests.probe.authority import Authority, Issued
from tests.probe.seeding import Stage
from tests.probe.servers import DOMAIN, OURS, Backend, Front, backend, nginx


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def good(authority: Authority) -> Issued:
    """The relay's certificate as it should be."""
    return authority.issue(DOMAIN)


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Our relay, open to everyone."""
    with backend(OURS, tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture(scope="session")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Our relay with an admission controller that is away, failing closed."""
    flags = ("-verify-client-url", "http://127.0.0.1:9/verify", "-verify-client-url-fail-open=false")
    with backend(OURS, tmp_path_factory.mktemp("closed"), *flags) as running:
        yield running


@pytest.fixture(scope="session")
def fronted(
    relay: Backend, good: Issued, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, int]]:
    """(https, http) ports of a healthy nginx before the relay."""
    folder: Path = tmp_path_factory.mktemp("front")
    with nginx(Front.of(good), relay, folder) as ports:
        yield ports


@pytest.fixture(params=["ours", pytest.param("derper", marks=[pytest.mark.lab, pytest.mark.timeout(900)])])
def command(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The relay's program: ours, or Go's, built from its sums."""
    if request.param == "ours":
        return OURS
    cache = Path(__file__).parents[2] / ".cache"
    return (str(go.build(DERPER, cache=cache, progress=print) / "derper"),)


@pytest.fixture
def stage(
    authority: Authority,
    good: Issued,
    relay: Backend,
    closed: Backend,
    fronted: tuple[int, int],
    tmp_path: Path,
) -> Stage:
    return Stage(authority, good, relay, closed, fronted, tmp_path / "front")
