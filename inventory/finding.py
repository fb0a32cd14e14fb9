"""The finding of a rule over a host's keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from inventory.model import Host


class Finding(NamedTuple):
    """`path` and `looked_at` are relative to the host, dotted."""

    path: str
    message: str
    looked_at: tuple[str, ...] = ()


Rule = Callable[[Host], Iterator[Finding]]
