"""Proved relays into headscale's map: one transaction in one run on the headscale host."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.plan import Mode
from engine.resource import Resource
from engine.run import Outcome, converge
from engine.session import Session
from fleet.context import HEADSCALE, Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import derpmap, headscale


class RegistrationFailed(DerpfleetError):
    """The map was not taken; headscale has the one that it had."""


def register(fleet: Fleet, proved: Sequence[Host], *, withdrawn: Sequence[Host] = ()) -> None:
    """Merges proved relays into the map that headscale serves. Raises RegistrationFailed; the previous map is then in force.

    A site with no headscale host is told what to paste where.
    """
    if fleet.site.headscale is None:
        fleet.report.say(derpmap.instructions(fleet.site))
        return
    outcome = _converge(fleet, "apply", proved, withdrawn)
    for failure in outcome.failures:
        raise RegistrationFailed(
            f"headscale did not take the map: {failure.what}",
            host=HEADSCALE,
            where=f"roles/headscale.py -> {failure.id}",
            why=failure.why,
            next="the previous map is in force; mend the cause and deploy again",
        )
    codes = ", ".join(f"{host.region.code} ({host.region.id})" for host in proved)
    fleet.report.line(HEADSCALE, "ok", f"serves {codes}")


def _compile(fleet: Fleet, session: Session, proved: Sequence[Host], withdrawn: Sequence[Host]) -> list[Resource]:
    """What config.yaml names under derp.paths is known only when it was read: the second question costs a turn."""
    facts = session.ask(headscale.ask(fleet.site, session.facts))
    for warning in headscale.warnings(fleet.site, facts):
        fleet.report.line(HEADSCALE, "warning", warning)
    return headscale.resources(fleet.site, facts, proved, withdrawn)


def check_registration(fleet: Fleet, hosts: Sequence[Host]) -> int:
    """How many resources on the headscale host a registration of these hosts would change."""
    return _converge(fleet, "check", hosts, ()).counts["changed"] if fleet.site.headscale else 0


def _converge(fleet: Fleet, mode: Mode, proved: Sequence[Host], withdrawn: Sequence[Host]) -> Outcome:
    started = time.monotonic()
    fleet.report.doing(HEADSCALE, "connecting")
    outcome = converge(
        fleet.headscale_login(),
        lambda session: _compile(fleet, session, proved, withdrawn),
        ask=headscale.ask(fleet.site),
        mode=mode,
        runs=fleet.runs,
        on_event=lambda event: fleet.report.agent_event(HEADSCALE, event),
        on_session=fleet.watch,
    )
    fleet.report.counts(HEADSCALE, outcome.counts, checking=mode == "check", seconds=time.monotonic() - started)
    return outcome
