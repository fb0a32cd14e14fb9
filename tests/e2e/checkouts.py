"""Copies of the checkout, from which a verb runs as on another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from inventory.checkout import CACHE, CHECKOUT, RUNS
from inventory.rules import PROVER_FILE

_LEFT_OUT = {".git", ".venv", ".cache", ".runs", "bench", "docs", "tests", "__pycache__"}


def copied(folder: Path) -> Path:
    """Return a copy of what a verb needs, below this folder. It has neither cache nor records."""
    copy = folder / "checkout"
    shutil.copytree(CHECKOUT, copy, ignore=lambda _, names: _LEFT_OUT & set(names))
    return copy


def of_another_operator(folder: Path, site_file: Path) -> Path:
    """Return a checkout that has none of our records of this site but the prover's keys."""
    copy, keys = copied(folder), RUNS / site_file.resolve().relative_to("/") / PROVER_FILE
    (copy / ".cache").symlink_to(CACHE.resolve())
    place = copy / keys.relative_to(CHECKOUT)
    place.parent.mkdir(parents=True)
    shutil.copy(keys, place)
    return copy
