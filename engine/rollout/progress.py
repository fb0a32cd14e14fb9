"""How far a rollout is, and each of its waves, in one word. Pure."""

from __future__ import annotations

from enum import StrEnum

from engine.rollout.state import HostState, Rollout, RolloutHost

_LONGEST_STEP_S = 900.0  # a host may be prepared for so long


class RolloutProgress(StrEnum):
    """How far a rollout is. A silent one has lost its controller, and can be resumed."""

    RUNNING = "running"
    PAUSED = "paused"
    SILENT = "silent"
    ENDED = "ended"


class WaveProgress(StrEnum):
    """How far a wave is."""

    PENDING = "pending"
    CUTTING = "cutting"
    SOAKING = "soaking"
    REGISTERING = "registering"
    DONE = "done"
    TAKING_BACK = "taking back"
    UNDONE = "undone"
    STUCK = "stuck"


_OVER = (WaveProgress.DONE, WaveProgress.UNDONE, WaveProgress.STUCK)


def progress(rollout: Rollout, *, silent_s: float) -> RolloutProgress:
    """Return how far it is. `silent_s`: the seconds since its last event."""
    if rollout.ended:
        return RolloutProgress.ENDED
    if rollout.paused:
        return RolloutProgress.PAUSED
    is_silent = silent_s > _LONGEST_STEP_S + rollout.policy.soak_s
    return RolloutProgress.SILENT if is_silent else RolloutProgress.RUNNING


def wave_progress(rollout: Rollout, number: int) -> WaveProgress:
    """Return how far that wave is. Hosts that will not be begun any more do not hold it up."""
    hosts = [host for host in rollout.hosts.values() if host.wave == number]
    states = {host.state for host in hosts}
    if HostState.STUCK in states:
        return WaveProgress.STUCK
    lost = [host for host in hosts if host.state is HostState.LOST]
    if HostState.GOING_BACK in states or any(host.is_returning for host in lost):
        return WaveProgress.TAKING_BACK
    confirmed = [host for host in hosts if host.state is HostState.CONFIRMED]
    if states & {HostState.CUTTING, HostState.LOST} or _has_more(rollout, states, number):
        return WaveProgress.CUTTING
    if confirmed:
        return _of_confirmed(rollout, confirmed)
    return WaveProgress.UNDONE if HostState.UNDONE in states else WaveProgress.PENDING


def _has_more(rollout: Rollout, states: set[HostState], number: int) -> bool:
    """Return whether a host of the wave will still be begun, and another one was."""
    waits, begun = {HostState.CHOSEN, HostState.WAITING}, {HostState.CONFIRMED, HostState.UNDONE}
    is_open = number == rollout.wave and not rollout.is_winding_up
    return is_open and bool(states & waits) and bool(states & begun)


def _of_confirmed(rollout: Rollout, confirmed: list[RolloutHost]) -> WaveProgress:
    watches = rollout.policy.soak_s and not rollout.is_winding_up
    if watches and not all(host.soaked for host in confirmed):
        return WaveProgress.SOAKING
    return WaveProgress.DONE if all(host.registered for host in confirmed) else WaveProgress.REGISTERING


def waves_over(before: Rollout, after: Rollout) -> list[int]:
    """Return the waves that are at their end now, and were not before."""
    numbers = range(1, after.waves + 1)
    changed = [one for one in numbers if wave_progress(before, one) is not wave_progress(after, one)]
    return [one for one in changed if wave_progress(after, one) in _OVER]
