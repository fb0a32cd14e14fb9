"""The waves of a rollout: canaries first, then hosts by the number of their clients. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from inventory.rollout import REST, RolloutPolicy


def grouped(clients: Mapping[str, int], like: Mapping[str, str], policy: RolloutPolicy) -> list[list[str]]:
    """Return the hosts in waves.

    `clients`: how many each host has. `like`: the kind of each. The hosts that the last size leaves
    over are one more wave.
    """
    order = sorted(clients, key=lambda name: clients[name])
    canaries = [name for name in order if name in policy.canary] or _canaries(order, clients, like)
    rest = [name for name in order if name not in canaries]
    waves = [canaries] if canaries else []
    for size in _sizes(policy.waves, len(order)):
        if rest:
            waves.append(rest[:size])
            rest = rest[size:]
    return [*waves, rest] if rest else waves


def _canaries(order: Sequence[str], clients: Mapping[str, int], like: Mapping[str, str]) -> list[str]:
    """Return a host of each kind: that with the fewest clients, but with some if there is one."""
    kinds = groupby(sorted(order, key=lambda name: like[name]), key=lambda name: like[name])
    found = [min(names, key=lambda name: clients[name] or float("inf")) for _, names in kinds]
    return [name for name in order if name in found]


def _sizes(words: Sequence[str], total: int) -> Iterator[int]:
    for word in words:
        if word == REST:
            yield total
        elif word.endswith("%"):
            yield -(-total * int(word[:-1]) // 100)
        else:
            yield int(word)
