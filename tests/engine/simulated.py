"""A fleet in memory: the truth on its hosts, which outlives each controller, and its faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.rollout.machine import actions, begin, begin_back, step
from engine.rollout.state import (
    BUSY,
    ActionKind,
    EventKind,
    HostState,
    Rollout,
    RolloutAction,
    RolloutEvent,
)
from inventory.rollout import RolloutPolicy

OLD, NEW, HALF, BROKEN = "old", "new", "half", "broken"


class Killed(Exception):
    """The controller is gone."""


@dataclass
class SimulatedHost:
    """A host.

    `fault`: the kind of the event in place of the good one. LOST and INCONCLUSIVE come once.
    `in_map`: the state of which the map has the place. It matters for one that moves.
    """

    clients: int = 0
    like: str = "a"
    near: str = ""
    changes: int = 1
    generation: int = 1
    moves: bool = False
    fault: EventKind | None = None
    truth: str = OLD
    in_map: str = OLD
    proved: bool = False


@dataclass
class World:
    """A fleet, and the controllers of one rollout.

    `states`: each state that the rollout has been in; `blamed`: the hosts that have failed by each
    of them, as their events say. `truths`: those of the hosts before each line was written.
    `prepared`: the hosts that the present controller has prepared. `kill_at`: the controller dies
    before it writes that line of the ledger, or with `dies_armed` while the host of that line is
    armed. `needs_two`: the map takes no first region alone.
    `goes_back`: all hosts go back to their states from before it.
    """

    hosts: dict[str, SimulatedHost]
    policy: RolloutPolicy
    soak_fails: frozenset[str] = frozenset()
    pauses: bool = False
    goes_back: bool = False
    needs_two: bool = False
    kill_at: int = -1
    dies_armed: bool = False
    asked: set[int] = field(default_factory=set)
    ledger: list[RolloutEvent] = field(default_factory=list)
    states: list[Rollout] = field(default_factory=list)
    blamed: list[frozenset[str]] = field(default_factory=list)
    truths: list[dict[str, str]] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    prepared: set[str] = field(default_factory=set)

    def start(self) -> Rollout:
        if self.goes_back:
            return begin_back(dict.fromkeys(self.hosts, 1), self.policy)
        return begin(list(self.hosts), self.policy, pauses=self.pauses)

    def replayed(self) -> Rollout:
        state = self.start()
        for event in self.ledger:
            state = step(state, event)
        return state

    def run(self, first: EventKind | None = None) -> Rollout:
        """Carry the rollout out with a new controller, until it pauses, ends or dies."""
        state = self.replayed()
        self.states.append(state)
        self.blamed.append(self.blamed[-1] if self.blamed else frozenset())
        self.lost.clear()
        self.prepared.clear()
        if first:
            state = self.take(state, RolloutEvent(kind=first))
        steps, limit = 0, 8 * len(self.hosts)  # P10
        while todo := actions(state):
            for action in todo:
                steps += 1
                assert steps <= limit
                state = self.take(state, self.perform(state, action))
        return state

    def take(self, state: Rollout, event: RolloutEvent) -> Rollout:
        self.truths.append({name: host.truth for name, host in self.hosts.items()})
        if len(self.ledger) == self.kill_at:
            self.kill_at = -1
            raise Killed
        self.ledger.append(event)
        self.blamed.append(self.blamed[-1] | self.blames(state, event))
        state = step(state, event)
        self.states.append(state)
        return state

    def blames(self, before: Rollout, event: RolloutEvent) -> set[str]:
        """Return the hosts that have failed by this event. A controller that died blames none."""
        if event.kind is EventKind.SOAKED:
            return set(event.hosts)
        was = before.hosts[event.host].state if event.host else None
        if event.kind is EventKind.LOST and was is HostState.CUTTING:
            self.lost.add(event.host)
        by_itself = event.kind is EventKind.AS_BEFORE and event.host in self.lost
        undone = event.kind is EventKind.UNDONE and was is HostState.CUTTING
        return {event.host} if by_itself or undone or event.kind is EventKind.STUCK else set()

    def to_the_end(self) -> Rollout:
        """Resume as often as it pauses or dies."""
        first = None
        for _ in range(20 + len(self.hosts)):
            try:
                state = self.run(first)
            except Killed:
                self.settle_alone()
            else:
                if state.ended:
                    return state
            first = EventKind.RESUMED
        raise AssertionError("it does not end")

    def settle_alone(self) -> None:
        """Let every armed agent take its host back, as nobody has confirmed it."""
        for host in self.hosts.values():
            if host.truth == HALF:
                host.truth = OLD

    def perform(self, state: Rollout, action: RolloutAction) -> RolloutEvent:
        if action.kind is ActionKind.SOAK:
            failing = tuple(name for name in action.hosts if name in self.soak_fails)
            return RolloutEvent(kind=EventKind.SOAKED, hosts=failing)
        if action.kind is ActionKind.COMPARE:
            assert all(state.hosts[name].state is HostState.IDLE for name in action.hosts)
            assert not state.names(HostState.WAITING, *BUSY)
            return RolloutEvent(kind=EventKind.REGISTERED, hosts=action.hosts)
        if action.kind is ActionKind.REGISTER:
            assert all(self.hosts[name].truth == NEW and self.hosts[name].proved for name in action.hosts)
            is_alone = len(action.hosts) == 1 and all(one.in_map == OLD for one in self.hosts.values())
            if self.needs_two and is_alone and self.may_wait(state, *action.hosts):
                return RolloutEvent(kind=EventKind.DEFERRED, hosts=action.hosts)
            for name in action.hosts:
                self.hosts[name].in_map = NEW
            return RolloutEvent(kind=EventKind.REGISTERED, hosts=action.hosts)
        if action.kind is ActionKind.ALLOW:
            return self.allow(state, action)
        [name] = action.hosts
        host = self.hosts[name]
        if action.kind is ActionKind.PREPARE:
            return self.prepare(name, host)
        if action.kind is ActionKind.ASK:
            self.settle_alone()
            still_broken = host.fault is EventKind.STILL_BROKEN
            kept = EventKind.STILL_BROKEN if still_broken else EventKind.CONFIRMED
            found = {NEW: kept, BROKEN: EventKind.STUCK}
            return RolloutEvent(kind=found.get(host.truth, EventKind.AS_BEFORE), host=name)
        if action.kind is ActionKind.TAKE_BACK:
            assert host.truth == NEW and state.hosts[name].generation
            host.truth = host.in_map = OLD
            return RolloutEvent(kind=EventKind.UNDONE, host=name)
        return self.cut_over(state, name, host)

    def may_wait(self, state: Rollout, name: str) -> bool:
        """Return whether the rollout can end without a person who helps the map of one region."""
        is_over = state.aborted or state.failures > state.policy.budget
        return bool(state.names(HostState.WAITING)) and not is_over and not self.hosts[name].moves

    def allow(self, state: Rollout, action: RolloutAction) -> RolloutEvent:
        """Refuse every second wave once."""
        assert {state.hosts[name].state for name in action.hosts} == {HostState.WAITING}
        assert {state.hosts[name].wave for name in action.hosts} == {state.wave}
        if state.wave % 2 and state.wave not in self.asked:
            self.asked.add(state.wave)
            return RolloutEvent(kind=EventKind.PAUSED, why="not now")
        return RolloutEvent(kind=EventKind.ALLOWED)

    def prepare(self, name: str, host: SimulatedHost) -> RolloutEvent:
        if host.fault in (EventKind.SKIPPED, EventKind.UNPREPARED):
            return RolloutEvent(kind=host.fault, host=name, code=3)
        self.prepared.add(name)
        changes = host.changes if host.truth != NEW else 0
        known = {"clients": host.clients, "like": host.like, "near": host.near}
        more = {"generation": host.generation, "plan": f"plan of {name}", "moves": host.moves}
        return RolloutEvent(kind=EventKind.PREPARED, host=name, changes=changes, **known, **more)

    def cut_over(self, state: Rollout, name: str, host: SimulatedHost) -> RolloutEvent:
        assert all(state.hosts[one].overtaken for one in state.names(HostState.CHOSEN))
        assert name in self.prepared
        assert host.truth == OLD
        if host.fault is EventKind.OVERTAKEN:
            host.fault = None
            return RolloutEvent(kind=EventKind.OVERTAKEN, host=name)
        host.truth = HALF
        if self.dies_armed and len(self.ledger) == self.kill_at:
            self.kill_at = -1
            raise Killed
        fault = host.fault or EventKind.CONFIRMED
        if fault in (EventKind.LOST, EventKind.INCONCLUSIVE):
            host.fault = None
        host.proved = fault is EventKind.CONFIRMED
        kept = host.proved or fault is EventKind.STILL_BROKEN
        left = {EventKind.LOST: HALF, EventKind.STUCK: BROKEN}
        host.truth = NEW if kept else left.get(fault, OLD)
        return RolloutEvent(kind=fault, host=name)


def world_of(hosts: Sequence[SimulatedHost], policy: RolloutPolicy, **more: object) -> World:
    """Return a world of these hosts, named h0, h1 and so on."""
    return World({f"h{number}": host for number, host in enumerate(hosts)}, policy, **more)  # type: ignore[arg-type]  # by name
