"""The records of a site's hosts: logs, proofs, pins, the prover's keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine import cache
from inventory.checkout import CHECKOUT, RUNS
from inventory.model import Site


def folder_of(site: Site) -> Path:
    """Return where a site's records are kept.

    It is a folder for each site file, because two sites may have hosts of the same name.
    """
    path = Path(site.path).resolve()
    return RUNS / path.relative_to(CHECKOUT if path.is_relative_to(CHECKOUT) else "/")


def keep(folder: Path, path: Path, record: Mapping[str, Any]) -> None:
    """Write a record to a file below that folder, as JSON. Raises CacheError."""
    with cache.access_to(folder):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        cache.write(path, (json.dumps(record, indent=1) + "\n").encode())
