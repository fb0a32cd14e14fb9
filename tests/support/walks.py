"""A walk over all ordered pairs of some things."""

from __future__ import annotations

from collections.abc import Collection


def over_all_pairs(things: Collection[str]) -> list[str]:
    """Return a walk that takes every ordered pair once, and ends where it began (Hierholzer)."""
    left = {thing: [other for other in things if other != thing] for thing in things}
    walk, path = list[str](), [next(iter(things))]
    while path:
        if left[path[-1]]:
            path.append(left[path[-1]].pop())
        else:
            walk.append(path.pop())
    return walk[::-1]
