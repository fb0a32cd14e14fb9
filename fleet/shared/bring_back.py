"""The job that brings a host back to one of its generations."""

from __future__ import annotations

from collections.abc import Callable

import roles
from engine.generations import Generation, History, Stored, moment
from engine.run import Job, Verb
from engine.session import Session
from fleet.shared import pins
from fleet.shared.confirm import DERPER, Confirmation
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
        ask=relay.ASK_WITHDRAWN,
        afterwards=lambda _: pins.ask(host),
        fence=fence,
        places=roles.ROLES,
        trouble="the way back failed",
        next=f"fix it, then run: invoke rollback --host {host.name}; it goes on from there",
    )


def stored(history: History, target: Generation, *, force: bool = False) -> Stored:
    """Return the plan of a generation, with the derper whose mesh key the host has after it.

    No generation keeps such a key, as it is a secret: it stays as it was confirmed last.
    """
    newest = history.find(history.newest)
    about = {**target.about, DERPER: newest.about.get(DERPER, "") if newest else ""}
    return Stored(target.number, target.plan, about, force)


def named(one: Generation) -> str:
    """Return a generation in words: its number, when, whose, and the release."""
    parts = (moment(one.at), one.who, one.about.get("release", ""))
    return f"{one.number} ({', '.join(filter(None, parts))})"
