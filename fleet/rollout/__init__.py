"""`invoke rollout`: bring all hosts to a new state in waves, each proved before the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.generations import moment
from engine.rollout.machine import PAUSED, actions
from engine.rollout.state import ActionKind, EventKind, HostState, RolloutAction, RolloutEvent
from engine.run import Verb
from fleet.rollout import hooks, show
from fleet.rollout.cutting import ask, cut_over, take_back
from fleet.rollout.lease import RolloutLease, leased
from fleet.rollout.ledger import RolloutLedger, new_head
from fleet.rollout.preparing import prepare
from fleet.rollout.under_way import UnderWay
from fleet.rollout.wave import allow_wave, compare_regions, register_wave, soak
from fleet.shared.control_server import control_server
from fleet.shared.errors import Interrupted, NoSuchHost
from fleet.shared.fleet import Fleet
from fleet.shared.last_rollout import LedgerHead, LedgerUnreadable, how_far, replayed
from fleet.shared.step import CHANGES_FOUND
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.rollout import RolloutPolicy


class NothingOpen(DerpfleetError):
    """There is no rollout to go on with, or to end."""


def rollout(
    fleet: Fleet,
    hosts: Sequence[Host],
    policy: RolloutPolicy,
    *,
    wait_s: int,
    again: bool = False,
    **more: bool,
) -> int:
    """Begin a rollout of these hosts, and carry it out. Returns the exit code.

    `more`: the flags of its ledger's head. `again`: also with plans that the last rollout could not
    prove. Raises Locked while another one is under way.
    """
    with leased(fleet, wait_s=wait_s) as lease:
        refused = superseded(fleet, lease)
        head = new_head([host.name for host in hosts], policy, refused={} if again else refused, **more)
        ledger = RolloutLedger(fleet.runs, lease, head)
        ledger.begin()
        return carry_out(UnderWay(fleet, head, head.begin(), ledger, lease.number))


def superseded(fleet: Fleet, lease: RolloutLease) -> Mapping[str, str]:
    """Return the plans that could not be proved up to now. Say when the last one has not ended."""
    try:
        last = replayed(lease.lines)
    except LedgerUnreadable as error:
        fleet.report.warning(show.NAME, f"{error.what}: {error.why}")
        return {}
    if last is None:
        return {}
    head, state = last
    if not state.ended:
        fleet.report.warning(show.NAME, f"supersedes {_named(head)}, which has not ended")
    confirmed = state.names(HostState.CONFIRMED)
    before = {name: plan for name, plan in head.refused.items() if name not in confirmed}
    return {**before, **{name: host.plan for name, host in state.hosts.items() if host.failed}}


def go_on(fleet: Fleet, kind: EventKind, *, wait_s: int) -> int:
    """Resume or abort the rollout that is open, whoever began it. Returns the exit code.

    Raises NothingOpen, LedgerUnreadable, Locked.
    """
    with leased(fleet, wait_s=wait_s) as lease:
        last = replayed(lease.lines)
        if last is None or last[1].ended:
            raise NothingOpen(
                "no rollout of this site is open",
                why=f"the last one was {_named(last[0])}, and has ended" if last else "there was none yet",
                next="invoke rollout begins one",
            )
        head, state = last
        _refuse_lost_hosts(fleet, head)
        fleet.report.line(show.NAME, "found", f"{_named(head)}: {how_far(state)}")
        ledger = RolloutLedger(fleet.runs, lease, head)
        under_way = UnderWay(fleet, head, state, ledger, lease.number)
        under_way.take(RolloutEvent(kind=kind))
        return carry_out(under_way)


def _refuse_lost_hosts(fleet: Fleet, head: LedgerHead) -> None:
    """Raise NoSuchHost when the site file has not all of the rollout's hosts any more."""
    try:
        fleet.hosts(head.hosts)
    except NoSuchHost as error:
        raise NoSuchHost(
            f"{_named(head)} cannot go on here: {error.what}",
            why=error.why,
            next="put it back into the site file; or invoke rollout begins a new one in place of that one",
        ) from None


def _named(head: LedgerHead) -> str:
    return f"rollout {head.rollout} of {head.who} at {moment(head.since)}"


def compare(fleet: Fleet, hosts: Sequence[Host], policy: RolloutPolicy, **more: bool) -> int:
    """Show the plan of a rollout and of its map, and change nothing. Returns the exit code."""
    head = new_head([host.name for host in hosts], policy, **more)
    under_way = UnderWay(fleet, head, head.begin())
    fleet.parallel.each(hosts, lambda host: under_way.take(prepare(under_way, host, Verb.CHECK)))
    if under_way.state.refused:
        return under_way.state.refused
    skipped = under_way.state.names(HostState.SKIPPED)
    differs = control_server(fleet).check([host for host in hosts if host.name not in skipped])
    return CHANGES_FOUND if under_way.state.waves or differs else 0


_OF_ONE: Mapping[ActionKind, Callable[[UnderWay, Host], RolloutEvent]] = {
    ActionKind.PREPARE: lambda under_way, host: prepare(under_way, host, Verb.PREPARE),
    ActionKind.CUT_OVER: cut_over,
    ActionKind.ASK: ask,
    ActionKind.TAKE_BACK: take_back,
}
_OF_SEVERAL: Mapping[ActionKind, Callable[[UnderWay, Sequence[Host]], RolloutEvent]] = {
    ActionKind.SOAK: soak,
    ActionKind.REGISTER: register_wave,
    ActionKind.COMPARE: compare_regions,
    ActionKind.ALLOW: allow_wave,
}


def _perform(under_way: UnderWay, action: RolloutAction) -> None:
    hosts = [under_way.host(name) for name in action.hosts]
    if action.kind in _OF_ONE:
        [host] = hosts
        under_way.take(_OF_ONE[action.kind](under_way, host))
    else:
        under_way.take(_OF_SEVERAL[action.kind](under_way, hosts))


def carry_out(under_way: UnderWay) -> int:
    """Do what the rollout needs, until its end or until it pauses. Returns the exit code."""
    fleet = under_way.fleet
    try:
        while todo := actions(under_way.state):
            fleet.parallel.each(todo, lambda action: _perform(under_way, action))
    except Interrupted as error:
        error.next = "invoke rollout --resume goes on from there; invoke rollout --abort ends it"
        raise
    except DerpfleetError as error:
        fleet.report.failure(error)
        fleet.report.line(show.NAME, "paused", "invoke rollout --resume goes on from there")
        code = PAUSED
    else:
        code = show.end(fleet.report, under_way.id, under_way.state)
    state = "ended" if under_way.state.ended else "paused"
    said = {"hook": "ended", "rollout": under_way.id, "state": state, "exit": code}
    hooks.tell(fleet, under_way.state.policy.hooks.ended, {**said, **show.grouped(under_way.state)})
    return code
