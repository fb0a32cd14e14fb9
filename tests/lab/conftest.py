"""One lab for all tests of this folder that want a whole one. It is always taken down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import lab


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A whole lab. Tests leave its hosts and names as they found them."""
    root = tmp_path_factory.mktemp("lab") / "lab"
    try:
        yield lab.up(root, progress=print)
    finally:
        lab.down(root)
        assert not root.exists()
