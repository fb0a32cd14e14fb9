"""`invoke history`: the generations of hosts, with who confirmed them, when, and how."""

from __future__ import annotations

from collections.abc import Sequence

from engine.generations import Generation, History, moment
from engine.run import NOTHING
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host


def history(fleet: Fleet, hosts: Sequence[Host]) -> int:
    """Ask all hosts at once, and show their generations, newest first. Returns the exit code."""
    said: dict[str, History | DerpfleetError] = {}

    def ask(host: Host) -> None:
        try:
            with fleet.session_for_reading(fleet.login(host), NOTHING) as session:
                said[host.name] = session.history()
        except DerpfleetError as error:
            error.host = error.host or host.name
            said[host.name] = error

    fleet.parallel.each(hosts, ask)
    codes = [_show(fleet, host, said[host.name]) for host in hosts]
    return max(codes)


def _show(fleet: Fleet, host: Host, found: History | DerpfleetError) -> int:
    """Show one host. Returns the exit code."""
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


def _show_generation(fleet: Fleet, host: Host, one: Generation, *, in_force: bool) -> None:
    changes = f"{one.changes} change{'s' * (one.changes != 1)}"
    proof = f"proved {one.proof.get('proved', '')}".strip()
    parts = [moment(one.at), one.verb, one.who, one.about.get("release", ""), changes, proof]
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
        about=one.about,
        proof=one.proof,
        trouble=one.trouble,
    )
