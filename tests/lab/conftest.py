"""One lab for all tests of this folder that need a whole one. It is always removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lab
from tests.support.labs import own_lab


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A whole lab. Tests leave its hosts and names unchanged."""
    with own_lab(tmp_path_factory, "lab") as own:
        yield own
    assert not own.root.exists()
