"""headscale as the control server of a site, reached over SSH on its own host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from control.contract import Look, Reach, Withdrawal
from control.headscale import facts as headscale_facts
from control.headscale import transaction
from control.headscale.facts import HeadscaleRefused
from control.headscale.pages import ask_map, nodes_at_home, read_lasting_map, read_map
from control.headscale.registration import regions_of, registration
from control.regions import hosts_in, ids_of
from control.sentences import has_former_id, region_stays, with_certificates
from control.served import Served, Unknown, Unreadable
from engine.crash import made_of_facts
from engine.facts import asked
from engine.run import Verb
from inventory.errors import DerpfleetError
from inventory.model import Host, Site
from inventory.rules import HEADSCALE


@dataclass(frozen=True)
class HeadscaleServer:
    """headscale, whose map is changed in its files and asked for on its own pages."""

    site: Site
    reach: Reach

    def look(self) -> Look:
        """Return headscale's version, its map and the hosts in it.

        Raises HeadscaleRefused, Unreachable.
        """
        with made_of_facts(HEADSCALE), self.reach.session(headscale_facts.ask(self.site)) as session:
            facts = session.facts
            seen = headscale_facts.read_facts(self.site, facts)
            in_map = {host.name for host in hosts_in(seen.regions, [*self.site.hosts.values()])}
            served = read_lasting_map(self.site, facts, session.ask(ask_map(self.site, facts)))
        known = seen.version != headscale_facts.NEWEST
        version = ".".join(map(str, seen.version)) if known else "of an unknown version"
        return Look(program=f"headscale {version}", served=served, in_map=in_map)

    def served(self) -> Served:
        """Return the map that headscale serves, or why it is not known. Never raises."""
        try:
            with made_of_facts(HEADSCALE), self.reach.session(headscale_facts.ask(self.site)) as session:
                facts = session.facts
                return read_lasting_map(self.site, facts, session.ask(ask_map(self.site, facts)))
        except HeadscaleRefused as error:
            return Unreadable(
                "\n".join(filter(None, (str(error), error.where, error.why))),
                cause="headscale's files on its host are missing or malformed: it does not start with them",
                next=error.next or "correct the lines that are named",
            )
        except DerpfleetError as error:
            return Unknown(f"headscale cannot be asked: {error}{f' ({error.why})' if error.why else ''}")

    def unasked(self, why: str) -> Unknown:
        """Return `why`."""
        return Unknown(why)

    def check(self, hosts: Sequence[Host]) -> int:
        """Show the changes that a registration would make, and return their number."""
        named = with_certificates(self.reach, HEADSCALE, hosts)
        nameless = len(hosts) - len(named)
        if not named:
            return nameless
        outcome = self.reach.step(registration(self.site, self.reach, Verb.CHECK, proved=named))
        return nameless + outcome.counts["changed"]

    def register(self, proved: Sequence[Host], *, all_proved: Sequence[Host]) -> Served:
        """Merge proved relays into the map, and return the map that headscale serves then.

        Raises ResourceFailed.
        """
        outcome = self.reach.step(registration(self.site, self.reach, Verb.REGISTER, proved=proved))
        codes = ", ".join(f"{host.region.code} ({host.region.id})" for host in proved)
        self.reach.report.line(HEADSCALE, "ok", f"serves {codes}")
        for left in transaction.to_withdraw(self.site, outcome.facts):
            self.reach.report.line(HEADSCALE, "", has_former_id(left, left.region.id))
        return read_map(outcome.facts)

    def not_proved(self, host: Host) -> None:
        """Show that the host's region stays in the map."""
        self.reach.report.say(region_stays(host))

    @contextmanager
    def withdrawal(self, host: Host) -> Iterator[Withdrawal | None]:
        """Hold a session with headscale's host, so that it can be asked where nodes are at home.

        Raises HeadscaleRefused, Unreachable.
        """
        with self.reach.session(headscale_facts.ask(self.site)) as session:
            regions = headscale_facts.read_facts(self.site, session.facts).regions
            hosts = [*self.site.hosts.values()]
            there = ids_of(regions, hosts, host)
            if not there:
                yield None
                return
            gone = regions_of(self.site, host, session.facts)
            files = headscale_facts.ask(self.site, session.facts)
            facts = session.ask(asked(files, ask_map(self.site, session.facts)))
            yield Withdrawal(
                others=[other for other in hosts_in(regions, hosts) if other.name != host.name],
                served=read_map(facts),
                nodes_at_home=partial(nodes_at_home, session, self.site, there),
                refuse_removal=partial(transaction.resources, self.site, facts, (), gone),
            )

    def take_out(self, host: Host) -> None:
        """Take every region of a stopped relay out of the map. Raises ResourceFailed."""
        self.reach.step(registration(self.site, self.reach, Verb.WITHDRAW, stopped=(host,)))
        self.reach.report.line(HEADSCALE, "ok", f"serves no region of {host.name}")
