"""The DERP map that a control server serves, or why it is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Map:
    """The whole map, decoded, in any of the spellings that `probe.derpmap.plain` reads.

    `title`: which one it is, in words.
    """

    document: Mapping[str, Any]
    title: str = "the map that headscale serves"


@dataclass(frozen=True)
class Unknown:
    """Why the map is not known, or not compared."""

    why: str


@dataclass(frozen=True)
class Unreadable:
    """Why the map that is there cannot be read.

    `why`: the observation, with file and line where there are any. `next`: the step to take.
    """

    why: str
    cause: str
    next: str


Served = Map | Unknown | Unreadable
