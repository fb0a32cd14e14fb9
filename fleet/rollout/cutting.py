"""Cut a host over, ask one that was lost, and take one back. Each returns the event of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from engine.generations import Generation, History, Stored
from engine.login import Unreachable
from engine.resource import Resource
from engine.rollout.state import EventKind, RolloutEvent
from engine.run import NOTHING, Job, Outcome, Verb
from engine.session import Locked, Session, Stopped
from fleet.rollout.moving import NotLeft, leave, restore_region
from fleet.rollout.under_way import UnderWay
from fleet.shared.bring_back import stored, way_back
from fleet.shared.confirm import (
    ROLLOUT,
    STUCK,
    TAKEN_BACK,
    UNDECIDED,
    Confirmation,
    after_going_back,
    run_confirmed,
)
from fleet.shared.control_server import control_server
from fleet.shared.errors import DeployRefused, Interrupted
from fleet.shared.host_job import LeftWithdrawn
from fleet.shared.prove import prove_hosts
from fleet.shared.seen import as_in, as_kept, moved
from fleet.shared.shut_out import WouldShutOut
from fleet.shared.step import show_failures
from fleet.shared.verdict import Conclusion
from inventory.errors import DerpfleetError
from inventory.model import Host

_AGAIN_S = (0.0, 5.0, 15.0, 40.0)  # a host that was lost is asked so often


class HasMoved(DerpfleetError):
    """Another run has changed the host since it was prepared; nothing was changed by this one."""


def cut_over(under_way: UnderWay, host: Host) -> RolloutEvent:
    """Apply the host's plan, and have it confirmed by a proof. Raises Interrupted, Stopped."""
    if why := under_way.unserved(host):
        return _held(under_way, host, why)
    judge, moves = _judge(under_way, host), under_way.state.hosts[host.name].moves
    job = under_way.job(host, Verb.ROLLOUT, {})
    wanted, seen = job.plan, under_way.state.hosts[host.name].generation
    judge.is_up = bool(seen) and not moves

    def plan(session: Session) -> Iterable[Resource] | Stored:
        newest = session.history().newest
        if newest != seen:
            raise HasMoved(f"it was at generation {seen} when it was prepared, and is at {newest} now")
        return wanted(session)

    try:
        if moves:
            [judge.before] = under_way.climbed([host])
            leave(under_way, host)
        outcome = run_confirmed(under_way.fleet, host, replace(job, plan=plan), judge)
    except (Interrupted, Stopped):
        raise
    except HasMoved as error:
        return _not_begun(under_way, host, EventKind.OVERTAKEN, error)
    except _NOT_BEGUN as error:
        return _not_begun(under_way, host, EventKind.INCONCLUSIVE, error)
    except DerpfleetError as error:
        return _lost(under_way, host, error)
    return _judged(under_way, host, job, outcome, judge)


_NOT_BEGUN = (Locked, DeployRefused, LeftWithdrawn, WouldShutOut, NotLeft)


def _not_begun(under_way: UnderWay, host: Host, kind: EventKind, error: DerpfleetError) -> RolloutEvent:
    """Return the event of a host whose plan was not begun. A mover that was stopped comes back."""
    if under_way.state.hosts[host.name].moves:
        try:
            found = _settled(under_way, host)
        except (Interrupted, Stopped):
            raise
        except DerpfleetError as trouble:
            return _lost(under_way, host, trouble)
        if found.kind is not EventKind.AS_BEFORE:
            return found
    return _held(under_way, host, str(error), kind)


def _judged(under_way: UnderWay, host: Host, job: Job, outcome: Outcome, judge: Confirmation) -> RolloutEvent:
    """Return the event of a host that was cut over, or taken back at once."""
    fleet = under_way.fleet
    show_failures(fleet, job, outcome, outcome.failures)
    if outcome.is_going_back:
        code = after_going_back(fleet, host, job, outcome, judge)
        kind, why = _NOT_KEPT[code]
        why = f"not proved: {judge.why}" if judge.why else why
        return _with_clients(RolloutEvent(kind=kind, host=host.name, why=why), judge)
    proof = judge.proof
    if outcome.ok and proof is None:  # another run has made these changes meanwhile
        proof = prove_hosts(fleet, [host], served=judge.served)[host.name]
    if judge.verdict is Conclusion.STILL_BROKEN:
        return RolloutEvent(kind=EventKind.STILL_BROKEN, host=host.name, why=judge.why)
    if not outcome.ok or proof is None or not proof.ok or judge.verdict is Conclusion.FAILED:
        why = "it is not proved, and has no earlier confirmed state to go back to"
        return RolloutEvent(kind=EventKind.STUCK, host=host.name, why=why)
    under_way.proofs[host.name] = proof
    return _with_clients(RolloutEvent(kind=EventKind.CONFIRMED, host=host.name), judge)


def _with_clients(event: RolloutEvent, judge: Confirmation) -> RolloutEvent:
    """Return the event with the clients that the restart has cut, as far as they are known."""
    if judge.clients is None:
        return event
    return replace(event, cut=judge.clients.cut, gap_s=round(judge.clients.seconds or 0.0, 3))


_NOT_KEPT = {
    TAKEN_BACK: (EventKind.UNDONE, "a resource failed"),
    UNDECIDED: (EventKind.INCONCLUSIVE, "there is no verdict: our own line may be at fault"),
    STUCK: (EventKind.STUCK, "not proved after the way back"),
}


def ask(under_way: UnderWay, host: Host) -> RolloutEvent:
    """Ask a host that was lost for its state, and bring it back if nobody has confirmed that.

    A host that has no state to go back to is cut over once more by a rollout that is resumed.
    """
    for pause_s in _AGAIN_S:
        time.sleep(pause_s)
        try:
            return _settled(under_way, host)
        except (Unreachable, Locked) as error:
            why = f"{host.name} cannot be asked for its state: {error}"
    return RolloutEvent(kind=EventKind.PAUSED, host=host.name, why=why)


def _settled(under_way: UnderWay, host: Host) -> RolloutEvent:
    login, known = under_way.fleet.login(host), under_way.state.hosts[host.name]
    with under_way.fleet.session_for_reading(login, NOTHING) as session:
        history = session.history()
    newest, has_moved = history.find(history.newest), _has_moved(under_way, host, history)
    if newest is None:
        return RolloutEvent(kind=EventKind.AS_BEFORE, host=host.name)
    may_be_stopped = known.moves or has_moved
    has_it, kind, why = newest.about.get(ROLLOUT) == under_way.id, EventKind.AS_BEFORE, ""
    if has_it:
        was_broken = Conclusion.STILL_BROKEN in newest.proof
        kind = EventKind.STILL_BROKEN if was_broken else EventKind.CONFIRMED
    if (history.unconfirmed.plan or may_be_stopped) and not _is_back(
        under_way, host, history, newest, is_stopped=may_be_stopped
    ):
        kind = EventKind.STUCK
    elif not has_it and has_moved:
        why = restore_region(under_way, as_kept(host, newest)[0])
    return RolloutEvent(kind=EventKind.STUCK if why else kind, host=host.name, why=why)


def take_back(under_way: UnderWay, host: Host) -> RolloutEvent:
    """Bring a confirmed host back to its state from before this rollout.

    A mover whose new place is in the map goes back as it came. Where nothing has failed, another
    relay has to be proved first.
    """
    if under_way.state.goes_back and (why := under_way.unserved(host)):
        return RolloutEvent(kind=EventKind.PAUSED, why=f"{host.name}: {why}")
    try:
        with under_way.fleet.session_for_reading(under_way.fleet.login(host), NOTHING) as session:
            history = session.history()
        before = next((one for one in history.generations if one.about.get(ROLLOUT) != under_way.id), None)
        has_moved, why = _has_moved(under_way, host, history), "it could not be taken back"
        if has_moved:
            with suppress(NotLeft):  # there is nothing better than the way back
                leave(under_way, host)
        if before is not None and _is_back(under_way, host, history, before, is_stopped=has_moved):
            why = restore_region(under_way, as_kept(host, before)[0]) if has_moved else ""
    except (Interrupted, Stopped):
        raise
    except DerpfleetError as error:
        return _lost(under_way, host, error)
    return RolloutEvent(kind=EventKind.STUCK if why else EventKind.UNDONE, host=host.name, why=why)


def _has_moved(under_way: UnderWay, host: Host, history: History) -> bool:
    """Return whether the map has the place of the host that this rollout has given to it."""
    ours = [one for one in history.generations if one.about.get(ROLLOUT) == under_way.id]
    before = [one for one in history.generations if one.about.get(ROLLOUT) != under_way.id]
    if not (under_way.state.hosts[host.name].registered and ours and before):
        return False
    return bool(moved(as_kept(host, ours[0])[0], as_kept(host, before[0])[0]))


def _is_back(
    under_way: UnderWay, host: Host, history: History, target: Generation, *, is_stopped: bool = False
) -> bool:
    """Bring the host back to a generation. Return whether it is proved there.

    `is_stopped`: its relay may be stopped by us, which excuses nothing.
    """
    fleet, judge = under_way.fleet, _judge(under_way, host)
    judge.leaves = is_stopped
    judge.host = as_in(host, target.about)

    def plan(session: Session) -> Stored:
        return stored(session.facts, history, target)

    job = way_back(judge, Verb.ROLLBACK, plan, fence=under_way.fence)
    outcome = run_confirmed(fleet, host, job, judge)  # it is reached at its present address
    show_failures(fleet, job, outcome, outcome.failures)
    if outcome.is_going_back:
        after_going_back(fleet, host, job, outcome, judge)
        return False
    # Without a change there was no proof: the host has gone back by itself meanwhile.
    proof = (
        judge.proof or prove_hosts(fleet, [judge.host], served=judge.served, derper=judge.derper)[host.name]
    )
    return outcome.ok and (proof.ok or judge.verdict is Conclusion.STILL_BROKEN)


def _judge(under_way: UnderWay, host: Host) -> Confirmation:
    server = control_server(under_way.fleet)
    served = server.unasked("compared when it is registered")
    return Confirmation(under_way.fleet, host, served, control=under_way.control)


def _held(
    under_way: UnderWay, host: Host, why: str, kind: EventKind = EventKind.INCONCLUSIVE
) -> RolloutEvent:
    under_way.fleet.report.line(host.name, "waiting", f"nothing was changed: {why}")
    return RolloutEvent(kind=kind, host=host.name, why=f"{host.name}: {why}")


def _lost(under_way: UnderWay, host: Host, error: DerpfleetError) -> RolloutEvent:
    error.host = error.host or host.name
    under_way.fleet.report.failure(error)
    return RolloutEvent(kind=EventKind.LOST, host=host.name, why=error.what)
