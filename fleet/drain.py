"""`invoke drain`: take a relay out of service for work on its host, and bring it back.

Its region stays in the map. It comes back as it was confirmed last: nothing is sent to the host.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import partial

from engine.generations import Stored
from engine.run import Job, Verb
from engine.session import Session
from fleet.shared.bring_back import stored, way_back
from fleet.shared.confirm import Confirmation, run_confirmed
from fleet.shared.fleet import Fleet
from fleet.shared.host_status import read_status
from fleet.shared.out_of_service import back_by, stop, take_out_of_service
from fleet.shared.seen import refuse_other_site
from fleet.shared.step import show_failures
from fleet.shared.verdict import Conclusion
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import relay
from roles.relay import OutOfService


class NotDrained(DerpfleetError):
    """The relay cannot be brought back by `--back`; nothing was changed."""


def drain(fleet: Fleet, host: Host) -> int:
    """Stop the relay when its nodes have another one. Steps that are done already are skipped.

    Returns the exit code. Raises NoOtherRelay, NotInMap, StillAtHome, ResourceFailed, Unreachable,
    Interrupted.
    """
    left = take_out_of_service(fleet, host, Verb.DRAIN, OutOfService.DRAINED)
    fleet.report.emit(event="drained", host=host.name, **asdict(left))
    back = back_by(host, OutOfService.DRAINED)
    fleet.report.line(host.name, "ok", f"drained, and its region stays in the map; {back} brings it back")
    return 0


def bring_back(fleet: Fleet, host: Host, *, force: bool = False) -> int:
    """Start a drained relay and prove it. One that is not proved is stopped again.

    `force`: overwrite files of ours that were edited by hand, as by the work on the host. Returns
    the exit code. Raises NotDrained, SiteDiffers, ResourceFailed, Unreachable, Interrupted, and
    DerpfleetError for files that were edited.
    """
    started = time.monotonic()
    judge = Confirmation(fleet, host, served=None, leaves=True)
    job = _job(fleet, judge, force)
    outcome = run_confirmed(fleet, host, job, judge)
    show_failures(fleet, job, outcome, outcome.failures)
    if outcome.ok and judge.verdict is Conclusion.PROVED:
        seconds, clients = round(time.monotonic() - started, 1), read_status(fleet, host, []).clients
        fleet.report.emit(event="in_service", host=host.name, clients=clients, seconds=seconds)
        words = "back in service; nodes for which it is the nearest come home at their next measurement"
        fleet.report.line(host.name, "ok", f"{words} ({clients or 0:,} clients by now)", seconds=seconds)
        return 0
    stop(fleet, host, Verb.DRAIN, OutOfService.DRAINED)
    fleet.report.say(
        f"{host.name} is NOT proved, so it was stopped again: it is drained as before. Look at it: "
        f"invoke logs --host {host.name} --relay"
    )
    return 1


def _job(fleet: Fleet, judge: Confirmation, force: bool) -> Job:
    """Return the job: the newest generation of the host, which has the relay running."""
    host = judge.host
    return replace(
        way_back(judge, Verb.DRAIN, partial(_plan, fleet, host, force)),
        trouble="the relay was not brought back",
        next=f"fix it, then run: {back_by(host, OutOfService.DRAINED)}",
    )


def _plan(fleet: Fleet, host: Host, force: bool, session: Session) -> Stored:
    """Return the newest generation's plan. Raises NotDrained, SiteDiffers."""
    deploy = f"invoke deploy --host {host.name} brings it back as the site file has it"
    state, history = relay.out_of_service(session.facts), session.history()
    in_force = f"in force now: {history.in_force}"
    if state is not OutOfService.DRAINED:
        why = f"it is {state}" if state else "no drain has stopped its relay"
        what = "nothing was changed: it is not drained"
        raise NotDrained(what, host=host.name, why=f"{why}; {in_force}", next=deploy)
    newest = history.find(history.newest)
    if newest is None or newest.trouble:
        why = newest.trouble if newest else "it has no generation: no deploy of it was confirmed yet"
        what = "nothing was changed: there is no state to go back to"
        raise NotDrained(what, host=host.name, why=f"{why}; {in_force}", next=deploy)
    refuse_other_site(host, history, newest, next=deploy)
    fleet.report.line(host.name, "starting", f"generation {newest.number}")
    return stored(session.facts, history, newest, force=force)
