"""`invoke history`: the generations of hosts, with who confirmed them, when, and how."""

from __future__ import annotations

from collections.abc import Sequence

from engine.generations import Generation, History, moment
from engine.run import NOTHING, Verb
from fleet.shared import past
from fleet.shared.confirm import ROLLOUT
from fleet.shared.fleet import Fleet
from fleet.shared.seen import SEEN, settings_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.past import KEPT_DAYS, TIME, changes

_SHOWN = 10  # changes of the result


def history(fleet: Fleet, hosts: Sequence[Host]) -> int:
    """Ask all hosts at once, and show their generations and how they proved, newest first.

    Returns the exit code.
    """
    said: dict[str, History | DerpfleetError | None] = {}

    def ask(host: Host) -> None:
        if not host.managed:
            said[host.name] = None
            return
        try:
            with fleet.session_for_reading(fleet.login(host), NOTHING) as session:
                said[host.name] = session.history()
        except DerpfleetError as error:
            error.host = error.host or host.name
            said[host.name] = error

    fleet.parallel.each(hosts, ask)
    codes = []
    for host in hosts:
        codes.append(_show(fleet, host, said[host.name]))
        _show_proofs(fleet, host)
    return max(codes)


def _show_proofs(fleet: Fleet, host: Host) -> None:
    """Show the proofs of 90 days: how many, how many were broken, and each change of the result."""
    found = past.entries(fleet, host.name)
    broken, changed = sum(not one.ok for one in found), changes(found)
    for one in changed[:_SHOWN]:
        fleet.report.line(host.name, "ok" if one.ok else "broken", f"{one.at:{TIME}}  {one.words}")
    count = f"{len(found)} proof{'s' * (len(found) != 1)}"
    words = f"{count} in {KEPT_DAYS} days, {broken} of them broken" if found else "no proof yet"
    fleet.report.line(host.name, "proofs", words)
    fleet.report.emit(
        event="proofs",
        host=host.name,
        proofs=len(found),
        broken=broken,
        changes=[{"at": f"{one.at:{TIME}}", "ok": one.ok, "broken": one.broken or None} for one in changed],
    )


def _show(fleet: Fleet, host: Host, found: History | DerpfleetError | None) -> int:
    """Show one host. Returns the exit code."""
    if found is None:
        fleet.left_to_others(host, "there are only proofs of it")
        return 0
    if isinstance(found, DerpfleetError):
        fleet.report.failure(found)
        return found.exit_code
    left = found.unconfirmed
    if left.plan:
        words = f"{moment(left.since)}  {left.verb}  {left.who}  deploy confirms it, rollback takes it back"
        fleet.report.line(host.name, "unconfirmed", words)
        more = {"plan": left.plan, "who": left.who, "verb": left.verb, "since": left.since}
        fleet.report.emit(event="unconfirmed", host=host.name, **more)
    for one in found.generations:
        _show_generation(fleet, host, one, in_force=one.number == found.newest and not left.plan)
    if not found.generations:
        fleet.report.line(host.name, "", "no generation: no deploy of this host was confirmed yet")
        return 0
    _show_as_found(fleet, host, found)
    return 0


def _show_as_found(fleet: Fleet, host: Host, found: History) -> None:
    """Show generation 0, the host before us, and which files of others do not come back."""
    before = f"before {moment(found.since)}" if found.since else "before derpfleet"
    words = f"{before}; invoke rollback --host {host.name} --to found takes derpfleet off the host"
    fleet.report.line(host.name, "as found", f"{0:>3}  {words}")
    for one in found.lost:
        fleet.report.line(host.name, "stays", f"{one}  its content of then is not kept (4 MiB at most)")
    fleet.report.emit(event="as_found", host=host.name, since=found.since or None, lost=found.lost)


def _verb(one: Generation) -> str:
    """Return the verb that has made it, with the id of its rollout."""
    return f"{one.verb} {one.about.get(ROLLOUT, '')}".strip() if one.verb == Verb.ROLLOUT else one.verb


def _show_generation(fleet: Fleet, host: Host, one: Generation, *, in_force: bool) -> None:
    changes = f"{one.changes} change{'s' * (one.changes != 1)}"
    proof = " ".join(word for pair in one.proof.items() for word in pair)
    parts = [moment(one.at), _verb(one), one.who, one.about.get("release", ""), changes, proof]
    words = one.trouble or "  ".join(filter(None, parts))
    fleet.report.line(host.name, "in force" if in_force else "kept", f"{one.number:>3}  {words}")
    fleet.report.emit(
        event="generation",
        host=host.name,
        number=one.number,
        in_force=in_force,
        plan=one.plan,
        who=one.who,
        verb=one.verb,
        since=one.at,
        changes=one.changes,
        about={**{word: said for word, said in one.about.items() if word != SEEN}, SEEN: settings_of(one)},
        proof=one.proof,
        trouble=one.trouble,
    )
