"""`invoke rollback`: bring a host back to an earlier generation, prove it, register it."""

from __future__ import annotations

from functools import partial

from engine.generations import Generation, History, Stored
from engine.run import Verb
from engine.session import Session
from fleet.shared.bring_back import stored, way_back
from fleet.shared.confirm import Confirmation, after_going_back, run_confirmed
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from fleet.shared.options import number
from fleet.shared.register import register
from fleet.shared.seen import refuse_other_site
from fleet.shared.step import CHANGES_FOUND, show_failures
from fleet.shared.verdict import Conclusion
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import relay

_STAYS = (
    "What does not come back: packages, users, certificates and keys stay as they are now, as does each file "
    "of others over 4 MiB, and clients whose connection was cut have connected again by themselves. The site "
    "file is as it was: the next deploy brings the host to it again."
)
_EDITED = "A rollback is refused while files are edited: keep what you need of them, and add --force."
_MOST = 99_999_999
FOUND = ("found", "0")
"""Words for the host as it was before the first deploy, which is `fleet.uninstall`'s work."""


class NoGeneration(DerpfleetError):
    """There is no such generation to go back to; nothing was changed."""


def rollback(fleet: Fleet, host: Host, *, to: str, dry_run: bool, force: bool) -> int:
    """Go back to generation `to`, or with "" to the one before the newest. Returns the exit code.

    Nothing is sent to the host but the words: contents and releases are there. Raises NoGeneration,
    SiteDiffers, Unreachable, Interrupted, and DerpfleetError when the host refuses it.
    """
    if to:
        number(to, "--to", most=_MOST)
    server = control_server(fleet)
    judge = Confirmation(fleet, host, server.unasked("compared when it is registered"))
    choose = partial(_plan, fleet, host, to, force)
    job = way_back(judge, Verb.CHECK if dry_run else Verb.ROLLBACK, choose)
    outcome = run_confirmed(fleet, host, job, judge)
    show_failures(fleet, job, outcome, outcome.failures)
    if dry_run:
        if outcome.drift and not force:
            fleet.report.say(_EDITED)
        return 1 if outcome.failures else CHANGES_FOUND if outcome.counts["changed"] else 0
    if outcome.counts["changed"] or outcome.is_going_back:
        fleet.report.say(_STAYS)
    if outcome.is_going_back:
        return after_going_back(fleet, host, job, outcome, judge)
    if judge.verdict is Conclusion.STILL_BROKEN:
        fleet.report.say(f"{host.name} went back, and is not registered. Still broken: {judge.why}.")
    if not outcome.ok or judge.proof is None or judge.verdict is not Conclusion.PROVED:
        return 0 if outcome.ok and not outcome.counts["changed"] else 1
    # The map goes along, forward as with every change of it.
    return 0 if register(fleet, server, {host.name: judge.proof}) else 1


def _plan(fleet: Fleet, host: Host, to: str, force: bool, session: Session) -> Stored:
    """Return the stored plan, after saying which one it is. Raises NoGeneration, SiteDiffers."""
    history = session.history()
    target = _chosen(host, history, to)
    step = "set these keys back in the site file, then run the rollback again"
    refuse_other_site(host, history, target, next=step)
    if history.unconfirmed.plan:
        words = f"unconfirmed changes of {history.unconfirmed.who} → generation {target}"
    else:
        words = f"generation {history.generations[0]} → {target}"
    fleet.report.line(host.name, "going back", words)
    if state := relay.out_of_service(session.facts):
        fleet.report.line(host.name, "", f"its relay is {state}; a rollback brings it back into service")
    return stored(session.facts, history, target, force=force)


def _chosen(host: Host, history: History, to: str) -> Generation:
    """Return the generation to go back to. Raises NoGeneration."""
    newest = history.find(history.newest)
    if to:
        found = history.find(int(to))
    elif history.unconfirmed.plan:
        found = newest
    else:
        found = next((one for one in history.generations if newest and one.plan != newest.plan), None)
    if found is None or found.trouble:
        kept = ", ".join(str(one.number) for one in history.generations)
        kept = f"{kept} and found" if kept else "only found"
        what = f"there is no generation {to} on this host" if to else "there is no generation to go back to"
        raise NoGeneration(
            found.trouble if found else what,
            host=host.name,
            why=f"nothing was changed; in force now: {history.in_force}; kept are: {kept}",
            next=f"invoke history --host {host.name} shows those that are kept; "
            f"--to found takes everything off the host",
        )
    return found
