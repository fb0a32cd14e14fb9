"""The history of proofs: a line for each proof of a host, kept for 90 days."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from engine import cache
from fleet.shared.fleet import Fleet
from inventory.rules import HISTORY
from probe import past
from probe.past import Entry
from probe.proof import Proof


def add(fleet: Fleet, name: str, proof: Proof) -> None:
    """Add a proof to the history of a host. Raises CacheError."""
    path, now = _path(fleet, name), datetime.now(UTC)
    with cache.locked(path.with_name(".lock")), cache.access_to(fleet.runs):
        text = path.read_text() if path.exists() else ""
        if text and (past.is_due(text, now) or not text.endswith("\n")):
            cache.write(path, past.without_old(text, now).encode())
        with path.open("a") as file:
            file.write(past.line(proof))


def entries(fleet: Fleet, name: str) -> list[Entry]:
    """Return the proofs of a host, oldest first. Raises CacheError."""
    path = _path(fleet, name)
    with cache.access_to(fleet.runs):
        return past.entries(path.read_text(errors="replace")) if path.exists() else []


def _path(fleet: Fleet, name: str) -> Path:
    return fleet.runs / HISTORY / f"{name}.jsonl"
