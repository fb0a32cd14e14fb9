"""Real nodes that are watched while something is done to their relays."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations

from bench.rollback.pings import Pings, pinging
from lab.client import LabClient

_EVERY_S = 1.0


@dataclass
class Watched:
    """Answers to the pings of each pair of nodes, as "one to other".

    `looks`: how many regions each look at a node has found in its map.
    """

    pairs: dict[str, Pings]
    looks: list[int] = field(default_factory=list)

    def gaps_s(self) -> dict[str, float]:
        """Return the longest time without an answer of each pair, from its first answer on."""
        return {
            name: round(pings.gap_s(pings.answers[0], pings.answers[-1]), 1)
            for name, pings in self.pairs.items()
        }


@contextmanager
def watched(nodes: Sequence[LabClient]) -> Iterator[Watched]:
    """Let each node ping those after it, and look at its map once a second."""
    ended = threading.Event()
    with ExitStack() as stack:
        found = Watched(
            {
                f"{one.name} to {other.name}": stack.enter_context(pinging(one, other))
                for one, other in combinations(nodes, 2)
            }
        )

        def look() -> None:
            while not ended.wait(_EVERY_S):
                found.looks += [len(node.regions()) for node in nodes]

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            thread.join()
