"""The job of `deploy`, `check` and `rollout`: one relay host as its roles want it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import roles
from artefacts.shipment import Shipment, make_shipment
from engine.facts import Ask, Facts, asked
from engine.resource import Resource
from engine.run import NOTHING, Job, Verb
from engine.session import Session
from fleet.shared import cut_over, pins, shut_out
from fleet.shared.bring_packages import bring
from fleet.shared.confirm import about
from fleet.shared.errors import DeployRefused
from fleet.shared.fleet import Fleet
from fleet.shared.out_of_service import back_by
from fleet.shared.prove import prover
from inventory.auto_source import explain_source
from inventory.checkout import CACHE
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import packages, relay
from roles.relay import OutOfService


class LeftWithdrawn(DerpfleetError):
    """The host's relay was withdrawn or drained, and nobody asked for it: nothing was changed."""

    def __init__(self, host: Host, state: OutOfService) -> None:
        super().__init__(f"left alone, as its relay is {state}", host=host.name)
        self.state = state


def host_job(
    fleet: Fleet, host: Host, verb: Verb, only: Sequence[str], *, include_withdrawn: bool = True
) -> Job:
    """Return the job: the host as its roles want it.

    After a deploy its certificate is asked for, if clients know it by its pin only. The plan has to
    be proved, and a whole one becomes a generation.
    `include_withdrawn`: also a relay that was withdrawn or drained; else its plan raises
    LeftWithdrawn.
    """
    before = NOTHING
    if verb is not Verb.CHECK:
        parts = (cut_over.ask_before(host), shut_out.ask(fleet, host), pins.ask(host))
        before = asked(*parts, Ask(history=True))
    return Job(
        verb=verb,
        plan=partial(_plan, fleet, host, include_withdrawn),
        ask=asked(roles.ask(host, fleet.site), relay.ASK_WITHDRAWN, before),
        afterwards=partial(pins.ask_after, host),
        about=(lambda _: {}) if only else partial(about, host),  # a part is no generation
        only=only,
        places=roles.ROLES,
        next=f"fix it, then run: invoke deploy --host {host.name}; it goes on from there",
    )


def left_withdrawn(fleet: Fleet, host: Host, state: OutOfService) -> None:
    """Show that the host is left alone, and how its relay is brought back."""
    fleet.report.doing(host.name, "")
    fleet.report.emit(event=str(state), host=host.name)
    words = f"{state}, so it is left alone; {back_by(host, state)} brings it back"
    fleet.report.line(host.name, "skipped", words)


def _plan(fleet: Fleet, host: Host, include_withdrawn: bool, session: Session) -> list[Resource]:
    """Return the roles' resources. Raises DeployRefused, LeftWithdrawn."""
    facts = session.facts
    state = relay.out_of_service(facts)
    if state and not include_withdrawn:
        raise LeftWithdrawn(host, state)
    if state:
        fleet.report.line(host.name, "", f"its relay is {state}; a deploy brings it back into service")
    raise_refusals(fleet, host, facts)
    if chosen := explain_source(host):
        fleet.report.emit(event="chosen", host=host.name, text=chosen)
        fleet.report.line(host.name, "", chosen)
    _list_neighbours(fleet, host, facts)
    for warning in roles.warnings(host, fleet.site, facts):
        fleet.report.warning(host.name, warning)
    ship = shipment(fleet, host, facts)
    resources = roles.compile_host(host, fleet.site, facts, ship)
    names = packages.to_bring(host, facts, resources)
    if not names:
        return resources
    brought = bring(host, session, names, partial(fleet.report.doing, host.name))
    return roles.compile_host(host, fleet.site, facts, replace(ship, packages=brought))


def raise_refusals(fleet: Fleet, host: Host, facts: Facts) -> None:
    """Raise DeployRefused with the reasons against a deploy, if there are any."""
    if reasons := roles.refusals(host, fleet.site, facts):
        raise DeployRefused(
            "nothing was changed, because something is in the way",
            host=host.name,
            why="\n".join(reasons),
        )


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


def shipment(fleet: Fleet, host: Host, facts: Facts) -> Shipment:
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
