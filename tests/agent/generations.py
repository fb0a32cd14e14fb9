"""Runs that make generations, and go back to them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.events import Event
from engine.generations import History, Stored
from engine.resource import Resource
from engine.run import Job, Outcome, Verb
from engine.session import Session
from inventory.errors import DerpfleetError
from tests.agent.driver import Agent

PROOF = {"proved": "packets pass"}
Judge = Callable[[Outcome, Session], object]


class HungUp(Exception):
    """The controller is gone."""


def hang_up_at(kind: str) -> Callable[[Event], None]:
    """Return a listener that hangs up at the first event of this kind."""

    def hear(event: Event) -> None:
        if event["event"] == kind:
            raise HungUp

    return hear


def keep(_: Outcome, session: Session) -> object:
    return session.keep(PROOF)


def back(_: Outcome, session: Session) -> object:
    return session.back()


def deployed(resources: Iterable[Resource], *, release: str = "r1") -> Job:
    """Return the job of a plan that has to be confirmed."""
    return Job(verb=Verb.DEPLOY, plan=lambda _: resources, about=lambda _: {"release": release})


def returned(
    number: int, *, verb: Verb = Verb.ROLLBACK, force: bool = False, removed: tuple[str, ...] = ()
) -> Job:
    """Return the job of a way back to a generation."""

    def plan(session: Session) -> Stored:
        known = session.history().find(number)
        return Stored(number, known.plan if known else "", known.about if known else {}, force, removed)

    return Job(verb=verb, plan=plan)


def deploy(agent: Agent, resources: Iterable[Resource], judge: Judge = keep, **more: Any) -> Outcome:
    return agent.run_job(deployed(resources), judge=judge, **more)


def roll_back(agent: Agent, number: int, judge: Judge = keep, **more: Any) -> Outcome:
    return agent.run_job(returned(number, **more), judge=judge)


def history(agent: Agent) -> History:
    """Return the host's generations, as `invoke history` gets them."""
    found: list[History] = []

    def plan(session: Session) -> Iterable[Resource]:
        found.append(session.history())
        return ()

    agent.run_job(Job(verb=Verb.CHECK, plan=plan))
    return found[0]


def record(agent: Agent, number: int) -> Mapping[str, Any]:
    """Return the file of a generation."""
    text = (agent.stage.root / f"var/lib/derpfleet/generations/{number}.json").read_text()
    return dict(json.loads(text))


def newest_of(agent: Agent, plan: str) -> int:
    """Return the number of the newest generation of that plan, by the files: no contact is made."""
    files = (agent.stage.root / "var/lib/derpfleet/generations").glob("[1-9]*.json")
    records = [json.loads(file.read_text()) for file in files]
    return max(int(one["number"]) for one in records if one["plan"] == plan)


def state(agent: Agent) -> dict[str, str]:
    """Return all that a plan changes: files, accounts, units, the kernel's settings."""
    ours = {path: looks for path, looks in agent.tree().items() if not path.startswith("var/lib/derpfleet")}
    rules = agent.stage.run("nft", "list", "ruleset").stdout
    return ours | {"rules": rules, "sysctl": agent.stage.run("sysctl", "net.ipv4.tcp_fin_timeout").stdout}


def await_free(agent: Agent) -> History:
    """Wait until the agent has ended, and with it its lock. Return the host's generations then."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            return history(agent)
        except DerpfleetError:
            time.sleep(0.2)
    raise AssertionError("the agent does not end")
