"""`invoke uninstall`: remove everything of derpfleet from a host whose relay is out of service."""

from __future__ import annotations

from functools import partial

import roles
from engine.resource import Resource
from engine.run import Job, Verb
from engine.session import Session
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from fleet.shared.prove import forget
from fleet.shared.step import CHANGES_FOUND, step
from inventory.errors import DerpfleetError
from inventory.model import Host

_STAYS = (
    "What stays: packages, Docker and its other images, certificates that other programs ordered, an "
    "nginx.conf that other sites are served with and, where an older derpfleet made the first deploy, kernel "
    "settings until the next boot."
)


class UninstallRefused(DerpfleetError):
    """Something on the host is in the way; nothing was changed."""


class InService(DerpfleetError):
    """Nothing was changed: clients may still use the relay."""


def uninstall(fleet: Fleet, host: Host, *, dry_run: bool, in_service: bool = False) -> int:
    """Remove every variant of every role, and the records of its proof. Returns the exit code.

    It is repeatable, also on a host that never had anything of ours. `in_service`: also a relay
    that clients may use, such as the only one; its region stays in the map. Raises InService,
    UninstallRefused, ResourceFailed, Unreachable, Interrupted.
    """
    look = control_server(fleet).look()
    if look is not None and host.name in look.in_map:
        where = f"its region is in the map of {look.program}"
        if not in_service:
            raise _in_service(host, f"{where}, so nodes may be at home there")
        fleet.report.warning(host.name, f"{where}, and stays there: take it out before nodes look for it")
    verb = Verb.CHECK if dry_run else Verb.UNINSTALL
    running_is_fine = in_service or look is not None
    outcome = step(fleet, fleet.login(host), _removal(host, verb, running_is_fine=running_is_fine))
    if dry_run:
        return CHANGES_FOUND if outcome.counts["changed"] else 0
    forget(fleet, host)
    if not outcome.counts["changed"]:
        fleet.report.line(host.name, "ok", "nothing to do: nothing of derpfleet is there")
        return 0
    fleet.report.line(host.name, "ok", "nothing of derpfleet is left there")
    fleet.report.say(f"{_STAYS} As long as the site file names {host.name}, a status shows it as broken.")
    return 0


def _removal(host: Host, verb: Verb, *, running_is_fine: bool) -> Job:
    """Return the job. `running_is_fine`: the relay is in no map, or it may be in service."""
    return Job(
        verb=verb,
        plan=partial(_plan, host, running_is_fine),
        ask=roles.ask_absent(),
        places=roles.ROLES,
        next=f"fix it, then run: invoke uninstall --host {host.name}; it goes on from there",
    )


def _plan(host: Host, running_is_fine: bool, session: Session) -> list[Resource]:
    """Return the absence of every role. Raises InService, UninstallRefused."""
    facts = session.facts
    if reasons := roles.absence_refusals(host, facts):
        raise UninstallRefused(
            "nothing was changed, because something is in the way",
            host=host.name,
            why="\n".join(reasons),
            next=f"then run: invoke uninstall --host {host.name}",
        )
    listens = roles.in_service(facts)
    if listens and not running_is_fine:
        raise _in_service(host, f"its relay listens on {', '.join(listens)}, and the map is not known")
    return roles.compile_absent(host, facts)


def _in_service(host: Host, why: str) -> InService:
    return InService(
        "nothing was changed: the relay is in service",
        host=host.name,
        why=why,
        next=f"invoke withdraw --host {host.name}, then invoke uninstall --host {host.name}; "
        f"for your only relay: invoke uninstall --host {host.name} --in-service",
    )
