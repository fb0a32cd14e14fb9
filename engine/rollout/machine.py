"""A rollout as a state machine: which host is in which state, and what has to be done next. Pure.

`step` takes an event in, and `actions` says what the new state needs done. The state follows from
the events alone, so that a rollout goes on from its events, whoever has written them down.

    chosen -> waiting -> cutting -> confirmed | undone | stuck
           |                     -> waiting (inconclusive: the rollout pauses)
           |                     -> chosen (overtaken by another run: once, then the rollout pauses)
           |                     -> lost (it has to be asked) -> confirmed | undone | stuck
           -> idle | skipped | unprepared
    confirmed -> chosen (resumed: another plan may change it once more) -> confirmed | waiting
    confirmed -> going back -> undone | stuck
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engine.rollout.state import (
    BUSY,
    ActionKind,
    EventKind,
    HostState,
    Rollout,
    RolloutAction,
    RolloutEvent,
    RolloutHost,
)
from engine.rollout.waves import grouped
from inventory.rollout import OnFailure, RolloutPolicy

PAUSED, FAILED, STUCK = 6, 7, 8
"""Exit codes: something has to be waited for; failed, and every host is confirmed or as before;
failed, and a host is neither."""
_WORK = {
    HostState.LOST: ActionKind.ASK,
    HostState.CUTTING: ActionKind.CUT_OVER,
    HostState.GOING_BACK: ActionKind.TAKE_BACK,
}


def begin(names: Sequence[str], policy: RolloutPolicy, *, pauses: bool = False) -> Rollout:
    """Return a rollout that has not begun."""
    return Rollout(policy=policy, hosts={name: RolloutHost() for name in names}, pauses=pauses)


def begin_back(before: Mapping[str, int], policy: RolloutPolicy) -> Rollout:
    """Return the rollout whose hosts all go back. `before`: their generations from before it.

    They are in the order in which they were confirmed.
    """
    hosts = {
        name: RolloutHost(
            state=HostState.CONFIRMED, generation=number, confirmed=place, soaked=True, registered=True
        )
        for place, (name, number) in enumerate(before.items(), start=1)
    }
    return _advanced(Rollout(policy=policy, hosts=hosts, goes_back=True))


def step(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Return the rollout after an event. Raises KeyError for an unknown host."""
    return _advanced(_counted(_TAKES[event.kind](rollout, event), event))


def actions(rollout: Rollout) -> tuple[RolloutAction, ...]:
    """Return what has to be done now; nothing while it is paused, and at its end."""
    if rollout.paused or rollout.ended:
        return ()
    work = _WORK if rollout.is_winding_up else {HostState.CHOSEN: ActionKind.PREPARE, **_WORK}
    found = [
        RolloutAction(kind=kind, hosts=(name,))
        for state, kind in work.items()
        for name in rollout.names(state)
    ]
    if found:
        return tuple(found)
    kind, names = next((kind, names) for kind, of in _OF_SEVERAL if (names := of(rollout)))
    return (RolloutAction(kind=kind, hosts=tuple(names)),)


def exit_code(rollout: Rollout) -> int:
    """Return the exit code of a verb that ends here."""
    if rollout.names(HostState.STUCK):
        return STUCK
    if not rollout.ended:
        return PAUSED
    if rollout.refused:
        return rollout.refused
    if rollout.failures > rollout.policy.budget:
        return FAILED
    return 1 if rollout.failures else 0


def _counted(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Add the clients that were cut to those of the event's host."""
    if not event.cut:
        return rollout
    host = rollout.hosts[event.host]
    cut, gap_s = host.cut + event.cut, max(host.gap_s, event.gap_s)
    return rollout.changed(event.host, host.state, cut=cut, gap_s=gap_s)


_KNOWN = ("plan", "generation", "clients", "like", "near", "moves")


def _prepared(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Take in what a host needs. One that was confirmed and needs more gets a new wave."""
    known = {name: getattr(event, name) for name in _KNOWN}
    if not rollout.hosts[event.host].confirmed:
        state = HostState.WAITING if event.changes else HostState.IDLE
        return rollout.changed(event.host, state, **known)
    if not event.changes:
        return rollout.changed(event.host, HostState.CONFIRMED)
    again = {"wave": 0, "soaked": False, "registered": False}
    return rollout.changed(event.host, HostState.WAITING, **known, **again)


def _confirmed(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Take in that a host has the new state; one on its way back has failed to leave it."""
    order = 1 + max(host.confirmed for host in rollout.hosts.values())
    return rollout.changed(event.host, HostState.CONFIRMED, confirmed=order)


def _still_broken(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Take in a host that was broken before, and is no worse: no failure, and not registered."""
    confirmed = _confirmed(rollout, event)
    return confirmed.changed(event.host, HostState.CONFIRMED, soaked=True, registered=True)


def _undone(rollout: Rollout, event: RolloutEvent) -> Rollout:
    host = rollout.hosts[event.host]
    is_failure = host.failed or host.state is HostState.CUTTING
    return rollout.changed(event.host, HostState.UNDONE, failed=is_failure)


def _as_before(rollout: Rollout, event: RolloutEvent) -> Rollout:
    host = rollout.hosts[event.host]
    if host.is_returning:
        return rollout.changed(event.host, HostState.UNDONE)
    is_failure = host.if_as_before is HostState.UNDONE
    return rollout.changed(event.host, host.if_as_before, failed=is_failure)


def _stuck(rollout: Rollout, event: RolloutEvent) -> Rollout:
    return rollout.changed(event.host, HostState.STUCK, failed=True)


def _inconclusive(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Let the host wait again: nothing was kept, and no host is blamed."""
    return _paused(rollout.changed(event.host, HostState.WAITING), event)


def _overtaken(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Have a host prepared again that another run has changed meanwhile: once, then pause."""
    if rollout.hosts[event.host].overtaken:
        return _inconclusive(rollout, event)
    return rollout.changed(event.host, HostState.CHOSEN, overtaken=True)


def _lost(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Have the host asked; one that is lost on its way back a second time is given up."""
    host = rollout.hosts[event.host]
    if host.is_returning:
        return _stuck(rollout, event)
    returning = host.state is HostState.GOING_BACK
    after = HostState.UNDONE
    return rollout.changed(event.host, HostState.LOST, if_as_before=after, is_returning=returning)


def _soaked(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Take in which hosts did not hold. One that has nothing to go back to is stuck."""
    for name in _unsoaked(rollout):
        failed = name in event.hosts
        is_stuck = failed and not rollout.hosts[name].generation
        state = HostState.STUCK if is_stuck else HostState.CONFIRMED
        rollout = rollout.changed(name, state, soaked=True, failed=failed)
    return rollout


def _registered(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Take in which hosts are registered. With a reason, a person has to do the rest first."""
    for name in event.hosts:
        rollout = rollout.changed(name, rollout.hosts[name].state, registered=True)
    return _paused(rollout, event) if event.why and _goes_on(rollout) else rollout


def _deferred(rollout: Rollout, event: RolloutEvent) -> Rollout:
    """Let the regions of these hosts wait for those of a later wave. Without one it pauses.

    A mover's region does not wait: clients would look for it in its former place.
    """
    if not _goes_on(rollout) or any(rollout.hosts[name].moves for name in event.hosts):
        return _paused(rollout, event)
    for name in event.hosts:
        rollout = rollout.changed(name, rollout.hosts[name].state, deferred=True)
    return rollout


def _paused(rollout: Rollout, event: RolloutEvent) -> Rollout:
    return replace(rollout, paused=event.why)


def _resumed(rollout: Rollout, _: RolloutEvent) -> Rollout:
    """Ask each host again that is not known to be settled: its controller may be gone.

    The others are prepared again, as the site file or the checkout may have changed since.
    """
    for name in rollout.names(*BUSY):
        host = rollout.hosts[name]
        returning = host.is_returning or host.state is HostState.GOING_BACK
        chosen = HostState.CHOSEN
        rollout = rollout.changed(name, HostState.LOST, if_as_before=chosen, is_returning=returning)
    unbegun = (HostState.WAITING, HostState.IDLE, HostState.UNPREPARED)
    kept = [name for name in rollout.names(HostState.CONFIRMED) if not rollout.hosts[name].failed]
    for name in [] if rollout.is_winding_up else [*rollout.names(*unbegun), *kept]:
        rollout = rollout.changed(name, HostState.CHOSEN)
    compared = rollout.names(HostState.CHOSEN, HostState.UNPREPARED) if rollout.is_winding_up else []
    for name in compared:
        if rollout.hosts[name].confirmed:
            rollout = rollout.changed(name, HostState.CONFIRMED)
    return replace(rollout, paused="", pauses=False, refused=0)


def _aborted(rollout: Rollout, event: RolloutEvent) -> Rollout:
    return _resumed(replace(rollout, aborted=True), event)


_TAKES: Mapping[EventKind, Callable[[Rollout, RolloutEvent], Rollout]] = {
    EventKind.PREPARED: _prepared,
    EventKind.SKIPPED: lambda rollout, event: rollout.changed(event.host, HostState.SKIPPED),
    EventKind.UNPREPARED: lambda rollout, event: replace(
        rollout.changed(event.host, HostState.UNPREPARED), refused=max(rollout.refused, event.code)
    ),
    EventKind.CONFIRMED: _confirmed,
    EventKind.STILL_BROKEN: _still_broken,
    EventKind.UNDONE: _undone,
    EventKind.AS_BEFORE: _as_before,
    EventKind.STUCK: _stuck,
    EventKind.INCONCLUSIVE: _inconclusive,
    EventKind.OVERTAKEN: _overtaken,
    EventKind.LOST: _lost,
    EventKind.SOAKED: _soaked,
    EventKind.REGISTERED: _registered,
    EventKind.DEFERRED: _deferred,
    EventKind.ALLOWED: lambda rollout, _: replace(rollout, allowed=rollout.wave),
    EventKind.PAUSED: _paused,
    EventKind.RESUMED: _resumed,
    EventKind.ABORTED: _aborted,
}


def _advanced(rollout: Rollout) -> Rollout:
    """Return the rollout after the changes that follow from its state alone."""
    if rollout.paused or rollout.ended or rollout.names(HostState.LOST):
        return rollout
    if rollout.is_winding_up:
        return _wound_up(rollout)
    if rollout.names(HostState.CHOSEN):
        return rollout
    if unprepared := rollout.names(HostState.UNPREPARED):
        words = f"not prepared: {', '.join(unprepared)}"
        return replace(rollout, paused=words) if rollout.waves else replace(rollout, ended=True)
    return _in_waves(_with_waves(rollout))


def _in_waves(rollout: Rollout) -> Rollout:
    failed = [name for name in rollout.names(HostState.CONFIRMED) if rollout.hosts[name].failed]
    if failed and not rollout.names(*BUSY):
        return rollout.changed(failed[0], HostState.GOING_BACK)
    if _is_asked_first(rollout):
        return rollout
    while (following := _following(rollout)) is not None:
        rollout = rollout.changed(following, HostState.CUTTING)
    if rollout.names(*BUSY) or _unsoaked(rollout) or _unregistered(rollout):
        return rollout
    return _next_wave(rollout)


def _next_wave(rollout: Rollout) -> Rollout:
    if rollout.wave >= rollout.waves:
        return rollout if _uncompared(rollout) else replace(rollout, ended=True)
    if rollout.pauses:
        return replace(rollout, wave=rollout.wave + 1, paused="as was asked for, after the first wave")
    return _advanced(replace(rollout, wave=rollout.wave + 1))


def _with_waves(rollout: Rollout) -> Rollout:
    """Put the hosts that wait for no wave yet into waves of their own."""
    fresh = [name for name in rollout.names(HostState.WAITING) if not rollout.hosts[name].wave]
    clients = {name: rollout.hosts[name].clients for name in fresh}
    like = {name: rollout.hosts[name].like for name in fresh}
    for number, names in enumerate(grouped(clients, like, rollout.policy), start=rollout.waves + 1):
        for name in names:
            rollout = rollout.changed(name, HostState.WAITING, wave=number)
    return replace(rollout, waves=max(rollout.waves, *(host.wave for host in rollout.hosts.values())))


def _following(rollout: Rollout) -> str | None:
    """Return the host of this wave to cut over next, None while there is no room for one."""
    busy = rollout.names(*BUSY)
    if _unregistered_movers(rollout) or any(rollout.hosts[name].moves for name in busy):
        return None
    if len(busy) >= rollout.policy.at_once:
        return None
    waiting = sorted(_waiting(rollout), key=lambda name: rollout.hosts[name].clients)
    fitting = (name for name in waiting if _may_join(rollout, name, busy))
    return next((name for name in fitting if not (busy and rollout.hosts[name].moves)), None)


def _may_join(rollout: Rollout, name: str, busy: Sequence[str]) -> bool:
    """Return whether clients have another relay, and one near, while these are down together."""
    left = {one for one, host in rollout.hosts.items() if host.serves} - {name, *busy}
    is_covered = not busy or bool(left) or not rollout.hosts[name].serves
    return is_covered and not any(_adjoin(rollout, name, one) for one in busy)


def _goes_on(rollout: Rollout) -> bool:
    """Return whether hosts wait that will still be begun."""
    return bool(rollout.names(HostState.WAITING)) and not rollout.is_winding_up


def _waiting(rollout: Rollout) -> list[str]:
    """Return the hosts of the present wave that are not begun."""
    return [name for name in rollout.names(HostState.WAITING) if rollout.hosts[name].wave == rollout.wave]


def _is_asked_first(rollout: Rollout) -> bool:
    """Return whether the site's own program has to allow this wave before its next host."""
    is_new = bool(rollout.policy.hooks.before_wave) and rollout.allowed < rollout.wave
    return is_new and bool(_waiting(rollout))


def _adjoin(rollout: Rollout, one: str, other: str) -> bool:
    """Return whether each is the nearest host to the other: their clients would have none near."""
    return rollout.hosts[one].near == other and rollout.hosts[other].near == one


def _unsoaked(rollout: Rollout) -> list[str]:
    """Return the hosts to be watched, once those of their wave are confirmed."""
    if rollout.is_winding_up or not rollout.policy.soak_s:
        return []
    return [name for name in rollout.names(HostState.CONFIRMED) if not rollout.hosts[name].soaked]


def _unregistered(rollout: Rollout) -> list[str]:
    """Return the hosts whose regions enter the map now. Deferred ones wait for any other."""
    found = [name for name in rollout.names(HostState.CONFIRMED) if not rollout.hosts[name].registered]
    is_later = _goes_on(rollout) and all(rollout.hosts[name].deferred for name in found)
    return [] if is_later else found


def _uncompared(rollout: Rollout) -> list[str]:
    """Return the hosts that were left alone, whose regions are not compared with the map yet."""
    return [name for name in rollout.names(HostState.IDLE) if not rollout.hosts[name].registered]


def _unregistered_movers(rollout: Rollout) -> list[str]:
    return [name for name in _unregistered(rollout) if rollout.hosts[name].moves]


# In this order, once no host is at work.
_OF_SEVERAL: Sequence[tuple[ActionKind, Callable[[Rollout], list[str]]]] = (
    (ActionKind.REGISTER, _unregistered_movers),
    (ActionKind.SOAK, _unsoaked),
    (ActionKind.REGISTER, _unregistered),
    (ActionKind.ALLOW, _waiting),
    (ActionKind.COMPARE, _uncompared),
)
_SCOPES: Mapping[OnFailure, Callable[[Rollout, RolloutHost], bool]] = {
    "stop": lambda rollout, host: False,
    "wave": lambda rollout, host: host.wave == rollout.wave,
    "all": lambda rollout, host: True,
}


def _wound_up(rollout: Rollout) -> Rollout:
    """Take back what the policy says, newest first and one by one, and end.

    An abort takes nothing back.
    """
    if rollout.names(*BUSY):
        return rollout
    scope = _SCOPES["stop" if rollout.aborted else "all" if rollout.goes_back else rollout.policy.on_failure]
    kept = [(rollout.hosts[name], name) for name in rollout.names(HostState.CONFIRMED)]
    left = [
        (host.confirmed, name)
        for host, name in kept
        if host.generation and (host.failed or scope(rollout, host))
    ]
    if left:
        return rollout.changed(max(left)[1], HostState.GOING_BACK)
    return rollout if _unregistered(rollout) else replace(rollout, ended=True)
