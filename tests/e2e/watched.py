"""Real nodes that are watched while something is done to their relays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations

from bench.rollback.pings import Pings, pinging
from lab.client import LabClient

_EVERY_S = 1.0


@dataclass(frozen=True)
class Watched:
    """Answers to the pings of each pair of nodes, as "one to other".

    `looks`: the numbers of the regions in a node's map, at each look. `since`: when this began, in
    the seconds of `time.monotonic`.
    """

    pairs: Mapping[str, Pings]
    looks: list[set[int]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def gaps_s(self) -> dict[str, float]:
        """Return the longest time without an answer of each pair, until now."""
        now = time.monotonic()
        return {name: round(pings.gap_s(self.since, now), 1) for name, pings in self.pairs.items()}


@contextmanager
def watched(nodes: Sequence[LabClient]) -> Iterator[Watched]:
    """Let each node ping those after it, and look at its map once a second."""
    ended = threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        found = Watched(
            {
                f"{one.name} to {other.name}": stack.enter_context(pinging(one, other))
                for one, other in combinations(nodes, 2)
            }
        )

        def look() -> None:
            while not ended.wait(_EVERY_S):
                found.looks.extend(set(node.regions()) for node in nodes)

        looking = pool.submit(look)
        try:
            yield found
        finally:
            ended.set()
        looking.result()  # raises what a look has raised
