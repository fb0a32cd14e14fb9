"""The job that changes headscale's map: one transaction in one run on the headscale host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control.contract import HostSession, Reach, RegistrationFailed
from control.headscale import facts as headscale_facts
from control.headscale import transaction
from control.headscale.pages import ask_map
from engine.facts import Ask, Facts, asked
from engine.plan import Mode
from engine.resource import Resource
from engine.run import NOTHING, Failure, Verb
from inventory.model import Host, Site
from inventory.rules import HEADSCALE


@dataclass(frozen=True)
class Registration:
    """The job: headscale's map with the regions of proved relays and without those of stopped ones.

    The map that headscale serves is asked for afterwards.
    """

    site: Site
    reach: Reach
    mode: Mode = "apply"
    proved: Sequence[Host] = ()
    stopped: Sequence[Host] = ()
    only: Sequence[str] = ()

    @property
    def verb(self) -> Verb:
        """Return the verb that it is part of."""
        return Verb.CHECK if self.mode == "check" else Verb.WITHDRAW if self.stopped else Verb.REGISTER

    @property
    def ask(self) -> Ask:
        """Ask for headscale's files, version and unit."""
        return headscale_facts.ask(self.site)

    def plan(self, session: HostSession) -> list[Resource]:
        """Return the map, the configuration and headscale itself.

        The files that config.yaml names are asked for here, and the map that is served now, which
        has regions of derp.urls as well. That costs a turn.
        """
        site = self.site
        files = headscale_facts.ask(site, session.facts)
        facts = session.ask(asked(files, ask_map(site, session.facts)))
        for warning in transaction.warnings(site, facts):
            self.reach.report.line(HEADSCALE, "warning", warning)
        gone = [region for host in self.stopped for region in regions_of(site, host, facts)]
        return transaction.resources(site, facts, self.proved, gone, pins=self.reach.pins(self.proved))

    def afterwards(self, facts: Facts) -> Ask:
        """Ask for the map that headscale serves then."""
        return ask_map(self.site, facts) if self.mode == "apply" else NOTHING

    def failed(self, failure: Failure) -> RegistrationFailed:
        """Return an error that says which map is in force."""
        return RegistrationFailed(
            f"headscale did not take the map: {failure.what}",
            host=HEADSCALE,
            where=f"control/headscale/transaction.py -> {failure.id}",
            why=failure.why,
            next="the previous map is in force; fix the cause, then deploy again",
        )


def regions_of(site: Site, host: Host, facts: Facts) -> list[Host]:
    """Return the host once for each region that it may have in the map, by present and former ids.

    `facts` are the headscale host's.
    """
    return [host, *(left for left in transaction.to_withdraw(site, facts) if left.name == host.name)]
