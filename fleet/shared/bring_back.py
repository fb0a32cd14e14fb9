"""The job that brings a host back to one of its generations."""

from __future__ import annotations

from collections.abc import Callable

import roles
from engine.facts import Ask, Facts, asked
from engine.generations import Generation, History, Stored
from engine.resource import Absent
from engine.run import Job, Verb
from engine.session import Session
from fleet.shared import pins
from fleet.shared.confirm import Confirmation
from fleet.shared.seen import DERPER
from roles import relay


def way_back(judge: Confirmation, verb: Verb, choose: Callable[[Session], Stored], *, fence: int = 0) -> Job:
    """Return the job. `choose`: returns the generation. `fence`: of a rollout's lease."""
    host = judge.host

    def plan(session: Session) -> Stored:
        stored = choose(session)
        judge.derper = stored.about.get(DERPER, "")
        return stored

    return Job(
        verb=verb,
        plan=plan,
        ask=asked(relay.ASK_WITHDRAWN, Ask(history=True)),
        afterwards=lambda _: pins.ask(host),
        fence=fence,
        places=roles.ROLES,
        trouble="the way back failed",
        next=f"fix it, then run: invoke rollback --host {host.name}; it goes on from there",
    )


def stored(facts: Facts, history: History, target: Generation, *, force: bool = False) -> Stored:
    """Return the plan of a generation, with the derper whose mesh key the host has after it.

    No generation keeps such a key, as it is a secret: it stays as it was confirmed last. `facts`
    have to answer `relay.ASK_WITHDRAWN`: what a withdrawal has removed was not edited by hand.
    """
    newest = history.find(history.newest)
    about = {**target.about, DERPER: newest.about.get(DERPER, "") if newest else ""}
    state = relay.out_of_service(facts)
    removed = [one.path for one in relay.stopped(state) if isinstance(one, Absent)] if state else []
    return Stored(target.number, target.plan, about, force, removed)
