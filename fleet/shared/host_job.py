"""The job of `deploy` and of `check`: one relay host as its roles want it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import roles
from artefacts.shipment import Shipment, make_shipment
from engine.facts import Facts
from engine.resource import Resource
from engine.run import Job, Verb
from engine.session import Session
from fleet.shared import pins
from fleet.shared.confirm import about
from fleet.shared.errors import DeployRefused
from fleet.shared.fleet import Fleet
from fleet.shared.prove import prover
from inventory.auto_source import explain_source
from inventory.checkout import CACHE
from inventory.model import Host


def host_job(fleet: Fleet, host: Host, verb: Verb, only: Sequence[str]) -> Job:
    """Return the job: the host as its roles want it.

    After a deploy its certificate is asked for, if clients know it by its pin only. A whole plan
    has to be confirmed, and becomes a generation; with `only` it is none.
    """
    return Job(
        verb=verb,
        plan=partial(_plan, fleet, host),
        ask=roles.ask(host, fleet.site),
        afterwards=lambda _: pins.ask(host),
        about=None if only else partial(about, host),
        only=only,
        places=roles.ROLES,
        next=f"fix it, then run: invoke deploy --host {host.name}; it goes on from there",
    )


def _plan(fleet: Fleet, host: Host, session: Session) -> list[Resource]:
    """Return the roles' resources. Raises DeployRefused."""
    facts = session.facts
    reasons = roles.refusals(host, fleet.site, facts)
    if reasons:
        raise DeployRefused(
            "nothing was changed, because something is in the way",
            host=host.name,
            why="\n".join(reasons),
        )
    if chosen := explain_source(host):
        fleet.report.emit(event="chosen", host=host.name, text=chosen)
        fleet.report.line(host.name, "", chosen)
    _list_neighbours(fleet, host, facts)
    for warning in roles.warnings(host, fleet.site, facts):
        fleet.report.emit(event="warning", host=host.name, text=warning)
        fleet.report.line(host.name, "warning", warning)
    return roles.compile_host(host, fleet.site, facts, _shipment(fleet, host, facts))


def _list_neighbours(fleet: Fleet, host: Host, facts: Facts) -> None:
    """List the other sites that the deploy watches, before anything is changed."""
    urls = roles.other_sites(facts)
    if urls:
        fleet.report.emit(event="neighbours", host=host.name, urls=urls)
        words = (
            "the host also serves these sites; the deploy checks that they still answer as before: "
            f"{', '.join(urls)}"
        )
        fleet.report.line(host.name, "", words)


def _shipment(fleet: Fleet, host: Host, facts: Facts) -> Shipment:
    """Make the files for the host: the release for its Python, certbot, the prover's keys."""

    def progress(text: str) -> None:
        fleet.report.doing(host.name, text)

    facts = roles.for_programs(facts)
    keys = prover(fleet, host)
    return make_shipment(
        host,
        fleet.site,
        facts,
        cache=CACHE,
        prober_keys=keys.public,
        mesh_key=keys.mesh_key,
        progress=progress,
    )
