"""The job that changes headscale's map: one transaction in one run on the headscale host."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from control.contract import HostSession, Reach
from control.headscale import facts as headscale_facts
from control.headscale import transaction
from control.headscale.pages import ask_map
from engine.facts import Facts, asked
from engine.resource import Resource
from engine.run import Job, Verb
from inventory.model import Host, Site
from inventory.rules import HEADSCALE


def registration(
    site: Site, reach: Reach, verb: Verb, *, proved: Sequence[Host] = (), stopped: Sequence[Host] = ()
) -> Job:
    """Return the job: put regions of proved relays into headscale's map, take stopped ones out.

    The map that headscale serves then is asked for afterwards.
    """
    return Job(
        verb=verb,
        plan=partial(_plan, site, reach, proved, stopped),
        ask=headscale_facts.ask(site),
        afterwards=lambda outcome: ask_map(site, outcome.facts),
        places={transaction.ROLE: "control/headscale/transaction.py"},
        trouble="headscale did not take the map",
        next="the previous map is in force; fix the cause, then deploy again",
    )


def _plan(
    site: Site, reach: Reach, proved: Sequence[Host], stopped: Sequence[Host], session: HostSession
) -> list[Resource]:
    """Return the map, the configuration and headscale itself.

    The files that config.yaml names are asked for here, and the map that is served now, which has
    regions of derp.urls as well. That costs a turn.
    """
    files = headscale_facts.ask(site, session.facts)
    facts = session.ask(asked(files, ask_map(site, session.facts)))
    for warning in transaction.warnings(site, facts):
        reach.report.line(HEADSCALE, "warning", warning)
    gone = [region for host in stopped for region in regions_of(site, host, facts)]
    return transaction.resources(site, facts, proved, gone, pins=reach.pins(proved))


def regions_of(site: Site, host: Host, facts: Facts) -> list[Host]:
    """Return the host once for each region that it may have in the map, by present and former ids.

    `facts` are the headscale host's.
    """
    return [host, *(left for left in transaction.to_withdraw(site, facts) if left.name == host.name)]
