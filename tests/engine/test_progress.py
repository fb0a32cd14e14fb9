"""How far a rollout and its waves are, in one word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.rollout.machine import begin
from engine.rollout.progress import RolloutProgress, WaveProgress, progress, wave_progress
from engine.rollout.state import HostState, Rollout, RolloutHost
from inventory.rollout import RolloutPolicy


def rollout_of(*hosts: RolloutHost, **more: object) -> Rollout:
    names = [f"h{number}" for number in range(len(hosts))]
    known = dict(zip(names, hosts, strict=True))
    return replace(begin(names, RolloutPolicy(soak_s=60)), hosts=known, waves=1, **more)  # type: ignore[arg-type]  # by name


def host(state: HostState, **more: bool) -> RolloutHost:
    return RolloutHost(state=state, wave=1, **more)  # type: ignore[arg-type]  # by name


CONFIRMED, WAITING, UNDONE = HostState.CONFIRMED, HostState.WAITING, HostState.UNDONE


@pytest.mark.parametrize(
    ("hosts", "more", "wanted"),
    [
        ([host(WAITING)], {}, WaveProgress.PENDING),
        ([host(WAITING), host(WAITING)], {"wave": 0}, WaveProgress.PENDING),
        ([host(HostState.CUTTING), host(WAITING)], {}, WaveProgress.CUTTING),
        ([host(CONFIRMED), host(WAITING)], {}, WaveProgress.CUTTING),
        ([host(HostState.LOST)], {}, WaveProgress.CUTTING),
        ([host(CONFIRMED), host(CONFIRMED, soaked=True)], {}, WaveProgress.SOAKING),
        ([host(CONFIRMED, soaked=True)], {}, WaveProgress.REGISTERING),
        ([host(CONFIRMED, soaked=True, registered=True), host(UNDONE)], {}, WaveProgress.DONE),
        ([host(CONFIRMED, registered=True), host(WAITING)], {"aborted": True}, WaveProgress.DONE),
        ([host(HostState.GOING_BACK), host(CONFIRMED)], {}, WaveProgress.TAKING_BACK),
        ([host(HostState.LOST, is_returning=True)], {}, WaveProgress.TAKING_BACK),
        ([host(UNDONE, is_returning=True)], {}, WaveProgress.UNDONE),
        ([host(UNDONE), host(WAITING)], {"aborted": True}, WaveProgress.UNDONE),
        ([host(HostState.STUCK), host(HostState.GOING_BACK)], {}, WaveProgress.STUCK),
    ],
)
def test_a_wave_is_so_far(hosts: list[RolloutHost], more: dict[str, object], wanted: WaveProgress) -> None:
    assert wave_progress(rollout_of(*hosts, **more), 1) is wanted
    assert wave_progress(rollout_of(*hosts, **more), 2) is WaveProgress.PENDING


@pytest.mark.parametrize(
    ("more", "silent_s", "wanted"),
    [
        ({}, 0.0, RolloutProgress.RUNNING),
        ({}, 960.0, RolloutProgress.RUNNING),
        ({}, 961.0, RolloutProgress.SILENT),
        ({"paused": "our own line"}, 1e6, RolloutProgress.PAUSED),
        ({"ended": True}, 1e6, RolloutProgress.ENDED),
    ],
)
def test_a_rollout_is_so_far(more: dict[str, object], silent_s: float, wanted: RolloutProgress) -> None:
    assert progress(rollout_of(host(WAITING), **more), silent_s=silent_s) is wanted
