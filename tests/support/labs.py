"""A lab for some tests alone, taken down however they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import lab


@contextmanager
def own_lab(folders: pytest.TempPathFactory, name: str, **options: Any) -> Iterator[lab.Lab]:
    """Run a lab below a temporary folder of that name; `options` are those of `lab.up`."""
    root = folders.mktemp(name) / "lab"
    try:
        yield lab.up(root, progress=print, **options)
    finally:
        lab.down(root)
