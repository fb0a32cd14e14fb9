"""Proved relays into headscale's map: one transaction in one run on the headscale host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control import derpmap
from control.headscale import facts as headscale_facts
from control.headscale import transaction
from engine.facts import Ask, Facts
from engine.plan import Mode
from engine.resource import Resource
from engine.run import NOTHING, Failure, Verb
from engine.session import Session
from fleet.shared import pins
from fleet.shared.fleet import Fleet
from fleet.shared.prove import was_proved
from fleet.shared.served import NO_HEADSCALE, ask_map, read_map
from fleet.shared.step import step
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.rules import HEADSCALE
from probe.derpmap import Served


class RegistrationFailed(DerpfleetError):
    """The map was not taken; headscale has the one that it had."""


def register(fleet: Fleet, proved: Sequence[Host]) -> Served:
    """Merges proved relays into the map that headscale serves, and returns that map. Raises RegistrationFailed.

    A site with no headscale host is told what to paste where.
    """
    if fleet.site.headscale is None:
        _hand_over(fleet)
        return NO_HEADSCALE
    outcome = step(fleet, fleet.headscale_login(), Registration(fleet, proved=proved))
    fleet.report.line(HEADSCALE, "ok", f"serves {_codes(proved)}")
    for left in transaction.to_withdraw(fleet.site, outcome.facts):
        fleet.report.line(
            HEADSCALE,
            "",
            f"{left.name} is in the map as region {left.region.id}, too, which the site file gave up. Nodes hold on to it: "
            f"invoke withdraw --host {left.name}, then invoke deploy --host {left.name}",
        )
    return read_map(outcome.facts)


def take_out(fleet: Fleet, host: Host) -> bool:
    """Takes every region of a stopped relay out of the map. Returns whether there was one. Raises RegistrationFailed."""
    outcome = step(fleet, fleet.headscale_login(), Registration(fleet, stopped=(host,)))
    fleet.report.line(HEADSCALE, "ok", f"serves no region of {host.name}")
    return bool(outcome.changed)


def check_registration(fleet: Fleet, hosts: Sequence[Host]) -> int:
    """How many resources on the headscale host a registration of these hosts would change."""
    if fleet.site.headscale is None:
        return 0
    told = pins.known(fleet, hosts)
    nameless = [host for host in hosts if pins.needed(host) and host.name not in told]
    for host in nameless:
        fleet.report.line(HEADSCALE, "would change", f"region {host.region.id}, once the certificate of {host.name} is there")
    named = [host for host in hosts if host not in nameless]
    return len(nameless) + (step(fleet, fleet.headscale_login(), Registration(fleet, "check", named)).counts["changed"] if named else 0)


def regions_of(fleet: Fleet, host: Host, facts: Facts) -> list[Host]:
    """The host, once for each region that it may have in the map: the one of the site file, and those that the site gave up.

    `facts` are the headscale host's.
    """
    return [host, *(left for left in transaction.to_withdraw(fleet.site, facts) if left.name == host.name)]


@dataclass(frozen=True)
class Registration:
    """The job: headscale's map with the regions of proved relays, and without those of stopped ones. The map is asked for afterwards."""

    fleet: Fleet
    mode: Mode = "apply"
    proved: Sequence[Host] = ()
    stopped: Sequence[Host] = ()
    only: Sequence[str] = ()

    @property
    def verb(self) -> Verb:
        """Which of three verbs it is part of."""
        return Verb.CHECK if self.mode == "check" else Verb.WITHDRAW if self.stopped else Verb.REGISTER

    @property
    def ask(self) -> Ask:
        """What there is of headscale."""
        return headscale_facts.ask(self.fleet.site)

    def plan(self, session: Session) -> list[Resource]:
        """What config.yaml names under derp.paths is known only when it was read: the second question costs a turn."""
        site = self.fleet.site
        facts = session.ask(headscale_facts.ask(site, session.facts))
        for warning in transaction.warnings(site, facts):
            self.fleet.report.line(HEADSCALE, "warning", warning)
        gone = [region for host in self.stopped for region in regions_of(self.fleet, host, facts)]
        return transaction.resources(site, facts, self.proved, gone, pins=pins.known(self.fleet, self.proved))

    def afterwards(self, facts: Facts) -> Ask:
        """Ask for the map that headscale serves then."""
        return ask_map(self.fleet.site, facts) if self.mode == "apply" else NOTHING

    def failed(self, failure: Failure) -> RegistrationFailed:
        """Say which map is in force."""
        return RegistrationFailed(
            f"headscale did not take the map: {failure.what}",
            host=HEADSCALE,
            where=f"control/headscale/transaction.py -> {failure.id}",
            why=failure.why,
            next="the previous map is in force; mend the cause and deploy again",
        )


def _hand_over(fleet: Fleet) -> None:
    """Says what to paste where: the relays that are proved, by this run or an earlier one."""
    proved = {name: host for name, host in fleet.site.hosts.items() if was_proved(fleet, host)}
    site = fleet.site.model_copy(update={"hosts": proved})
    told = pins.known(fleet, list(proved.values()))
    fleet.report.emit(event="derpmap", derpmap=derpmap.derpmap(site, pins=told))
    fleet.report.say(derpmap.instructions(site, pins=told))


def _codes(hosts: Sequence[Host]) -> str:
    return ", ".join(f"{host.region.code} ({host.region.id})" for host in hosts)
