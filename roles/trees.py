"""Releases of a program: each a tree with its id as the name, below one folder of the host.

Those of before stay for the way back, as no generation has the content of a tree.
"""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.resource import Absent


def ask(folder: str) -> Ask:
    """Return the question for the releases that are there."""
    return Ask(files=(f"{folder}/*",))


def outdated(facts: Facts, folder: str, *wanted: str, needs: tuple[str, ...] = ()) -> tuple[Absent, ...]:
    """Return the removal of all that is below the folder, but the paths `wanted`, after `needs`.

    Trees that a generation of the host has stay.
    """
    there = sorted(path for path in facts.files if path.startswith(f"{folder}/") and path not in wanted)
    return tuple(Absent(path=path, needs=needs, unless_kept=path) for path in there)
