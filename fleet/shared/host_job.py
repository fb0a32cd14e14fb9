"""The job of `deploy` and of `check`: one relay host as its roles want it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import roles
from artefacts.shipment import Shipment, make_shipment
from engine.facts import Ask, Facts
from engine.plan import Mode
from engine.resource import Resource
from engine.run import NOTHING, Failure, Verb
from engine.session import Session
from fleet.shared import pins
from fleet.shared.errors import Refused, ResourceFailed
from fleet.shared.fleet import Fleet
from fleet.shared.prove import prover
from inventory.checkout import CACHE
from inventory.model import Host


@dataclass(frozen=True)
class HostJob:
    """A host as its roles want it.

    Its certificate is asked for afterwards if clients know it by its pin only.
    """

    fleet: Fleet
    host: Host
    mode: Mode
    only: Sequence[str]

    @property
    def verb(self) -> Verb:
        """Return which verb it is: the two differ in `mode` only."""
        return Verb.CHECK if self.mode == "check" else Verb.DEPLOY

    @property
    def ask(self) -> Ask:
        """Ask for the facts that the roles need."""
        return roles.ask(self.host, self.fleet.site)

    def plan(self, session: Session) -> list[Resource]:
        """Return the roles' resources. Raises Refused."""
        fleet, host, facts = self.fleet, self.host, session.facts
        reasons = roles.refusals(host, fleet.site, facts)
        if reasons:
            raise Refused(
                "nothing was changed, because something is in the way",
                host=host.name,
                why="\n".join(reasons),
            )
        _list_neighbours(fleet, host, facts)
        for warning in roles.warnings(host, fleet.site, facts):
            fleet.report.emit(event="warning", host=host.name, text=warning)
            fleet.report.line(host.name, "warning", warning)
        return roles.compile_host(host, fleet.site, facts, _shipment(fleet, host, facts))

    def afterwards(self, _: Facts) -> Ask:
        """Ask for the certificate, if clients need its pin."""
        return pins.ask(self.host) if self.mode == "apply" and pins.needed(self.host) else NOTHING

    def failed(self, failure: Failure) -> ResourceFailed:
        """Return an error that names the role's file and the next command."""
        return ResourceFailed(
            failure.what,
            host=self.host.name,
            where=f"{roles.ROLES.get(failure.role, 'roles/')} -> {failure.id}",
            why=failure.why,
            next=f"fix it, then run: invoke deploy --host {self.host.name}; it goes on from there",
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


def _shipment(fleet: Fleet, host: Host, facts: Facts) -> Shipment:
    """Make the files for the host: the release for its Python, certbot, the prover's keys."""

    def progress(text: str) -> None:
        fleet.report.doing(host.name, text)

    mesh_key = prover(fleet, host).mesh_key
    facts = roles.for_programs(facts)
    return make_shipment(host, fleet.site, facts, cache=CACHE, mesh_key=mesh_key, progress=progress)
