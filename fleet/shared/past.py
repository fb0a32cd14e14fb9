"""The history of proofs: a line for each proof of a host, kept for 90 days."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from engine import cache
from fleet.shared.fleet import Fleet
from inventory.rules import HISTORY
from probe import past
from probe.past import Entry
from probe.proof import Proof

_LINE = 4096  # bytes; a line has some 200


def add(fleet: Fleet, name: str, proof: Proof) -> Entry | None:
    """Add a proof to the history of a host, and return it as it is there. Raises CacheError."""
    path, now = _path(fleet, name), datetime.now(UTC)
    with cache.locked(path.with_name(".lock")), cache.access_to(fleet.runs):
        first, end = _ends(path)
        if first and (past.is_due(first, now) or not end.endswith("\n")):
            kept = past.without_old(path.read_text(errors="replace"), now)
            cache.write(path, kept.encode())
            end = kept[-_LINE:]
        added = past.line(proof, past.entry(end.splitlines()[-1]) if end else None)
        with path.open("a") as file:
            file.write(added)
    return past.entry(added)


def entries(fleet: Fleet, name: str) -> list[Entry]:
    """Return the proofs of a host, oldest first. Raises CacheError."""
    path = _path(fleet, name)
    with cache.access_to(fleet.runs):
        return past.entries(path.read_text(errors="replace")) if path.exists() else []


def _ends(path: Path) -> tuple[str, str]:
    """Return the first line of a file and its end; "" when there is no file."""
    if not path.exists():
        return "", ""
    with path.open("rb") as file:
        first = file.readline(_LINE)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE))
        return first.decode(errors="replace"), file.read().decode(errors="replace")


def _path(fleet: Fleet, name: str) -> Path:
    return fleet.runs / HISTORY / f"{name}.jsonl"
