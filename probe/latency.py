"""Distances of the relays: from this controller as measured, between them as the hosts report."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from probe.name import check_name, stated
from probe.net import NoRoute, Patience, connect
from probe.proof import Broken
from probe.stun import measure as measure_stun
from probe.target import Target
from relay.core.wire import ProtocolError

TRIES = 3
"""The least of so many is taken: the excess of the others is waiting, not distance."""


@dataclass(frozen=True)
class Latency:
    """Round trips in milliseconds; None: no answer.

    Clients choose their home by STUN; packets travel by TCP.
    """

    stun_ms: float | None
    tcp_ms: float | None

    @property
    def ms(self) -> float | None:
        """The figure to show: STUN's, else TCP's."""
        return self.stun_ms if self.stun_ms is not None else self.tcp_ms


@dataclass(frozen=True)
class Latencies:
    """Distances.

    `here`: host -> from this controller. `between`: (from, to) -> milliseconds, measured on `from`.

    A pair that was not measured is absent.
    """

    here: Mapping[str, Latency] = field(default_factory=dict)
    between: Mapping[tuple[str, str], float] = field(default_factory=dict)


def rows(latencies: Latencies, hosts: Sequence[str]) -> list[tuple[str, list[float | None]]]:
    """Return a matrix to print: this controller ("") first, then a row for each host that has
    measured.

    Columns are in the order of `hosts`.
    """
    here = [(each.ms if (each := latencies.here.get(host)) else None) for host in hosts]
    measured = [host for host in hosts if any(start == host for start, _ in latencies.between)]
    return [
        ("", here),
        *((start, [latencies.between.get((start, end)) for end in hosts]) for start in measured),
    ]


def measure_all(
    targets: Iterable[Target],
    *,
    patience: Patience = Patience(),  # noqa: B008 - frozen
) -> dict[str, Latency]:
    """Measure the distance to all targets at once, by the targets' names.

    A relay that does not answer raises nothing.
    """
    everyone = list(targets)

    async def all_at_once() -> list[Latency]:
        return list(await asyncio.gather(*(measure(target, patience) for target in everyone)))

    return dict(zip((target.name for target in everyone), asyncio.run(all_at_once()), strict=True))


async def measure(target: Target, patience: Patience) -> Latency:
    """Measure the distance to one relay, by its first address."""
    try:
        where = (await check_name(target, patience)).value.all
    except Broken:
        where = stated(target).all
    if not where:
        return Latency(None, None)
    return Latency(*await asyncio.gather(_stun(target, where[0], patience), _tcp(target, where[0], patience)))


async def _stun(target: Target, address: str, patience: Patience) -> float | None:
    best = None
    with contextlib.suppress(OSError, ProtocolError, NoRoute):
        for _ in range(TRIES if target.stun_port is not None else 0):
            ms, _, _ = await measure_stun(address, target.stun_port or 0, patience.stun_s)
            best = ms if best is None else min(best, ms)
    return best


async def _tcp(target: Target, address: str, patience: Patience) -> float | None:
    best = None
    with contextlib.suppress(OSError, NoRoute):
        for _ in range(TRIES):
            began = time.perf_counter()
            async with asyncio.timeout(patience.tcp_s):
                (await connect(address, target.https_port)).close()
            ms = (time.perf_counter() - began) * 1000
            best = ms if best is None else min(best, ms)
    return best
