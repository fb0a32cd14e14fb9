"""A controller without CPU time says so, and does not blame the provider's firewall (K2)."""

from __future__ import annotations

import asyncio
import time
from itertools import accumulate, count, repeat

import pytest

from probe.lateness import Lateness, starved
from probe.proof import Proof
from probe.verify import verify
from tests.probe.seeding import HASTE, Stage


@pytest.mark.parametrize(
    ("step_s", "late_s"), [(0.05, 0.0), (0.055, 0.0), (0.35, 0.3)]
)
def test_lateness_is_what_a_sleep_takes_too_long(
    step_s: float, late_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that advances by `step_s` in each sleep."""
    clock = (at for at in accumulate(repeat(step_s)) for _ in range(2))
    next(clock)
    lateness, sleeps = Lateness(lambda: next(clock)), count(1)

    async def sleep(_: float) -> None:
        if next(sleeps) > 10:
            raise asyncio.CancelledError

    monkeypatch.setattr("probe.lateness.asyncio.sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(lateness.measure())
    assert lateness.total_s == pytest.approx(10 * late_s)


@pytest.mark.parametrize(
    ("late_s", "took_s", "is_starved"),
    [(0.0, 2.0, False), (0.4, 0.5, False), (0.6, 0.8, True), (1.0, 10.0, False), (3.0, 10.0, True)],
)
def test_a_rung_that_had_too_little_time_is_starved(late_s: float, took_s: float, is_starved: bool) -> None:
    assert bool(starved(late_s, took_s)) == is_starved


async def hog(part: float) -> None:
    """Take the loop for most of the time."""
    while True:
        time.sleep(part)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("busy", [True, False])
def test_a_busy_controller_does_not_blame_the_firewall(stage: Stage, busy: bool) -> None:
    """STUN gets no answer, and the clients' packets none, either."""

    async def climb() -> Proof:
        async with stage.open:
            silent = await stage.stun(lambda *_: None)
            other = asyncio.create_task(hog(0.3 if busy else 0))
            try:
                return await verify(silent, patience=HASTE)
            finally:
                other.cancel()

    broken = asyncio.run(climb())["stun4"]
    assert broken.status == "failed"
    if busy:
        assert broken.cause.startswith("this controller had no CPU time for ")
        assert broken.next.startswith("let this machine do less at once, then invoke verify --host hk1")
    else:
        assert "firewall" in broken.cause
