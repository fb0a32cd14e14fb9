"""One run on one host: connect, ask, compile, converge, log.

A `Job` says what to run. All verbs are driven here.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from engine import cache
from engine.crash import made_of_facts
from engine.events import Event
from engine.facts import Ask, Facts
from engine.generations import Stored
from engine.login import Login
from engine.plan import Mode, Plan, compile_plan
from engine.resource import Resource
from engine.session import OnEvent, Session
from inventory.errors import DerpfleetError

NOTHING = Ask()


class Verb(StrEnum):
    """The verb that the operator called.

    A run's id ends in its value, as do the names of its log here and of its journal on the host.
    """

    DEPLOY = "deploy"
    CHECK = "check"
    REGISTER = "register"
    RENEW = "renew"
    WITHDRAW = "withdraw"
    DRAIN = "drain"
    UNINSTALL = "uninstall"
    ROLLBACK = "rollback"
    PREPARE = "prepare"
    ROLLOUT = "rollout"


_MODES: Mapping[Verb, Mode] = {Verb.CHECK: "check", Verb.PREPARE: "prepare"}
"""Those of the verbs that do not change everything."""


class ResourceFailed(DerpfleetError):
    """A resource did not converge."""


@dataclass(frozen=True)
class Failure:
    """A resource that did not converge, in the agent's words."""

    id: str
    what: str
    why: str
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of a verb on one host.

    `plan`: returns the resources, made from the facts of the session, which may be asked more, or a
    plan that the host has kept. It raises DerpfleetError, and then nothing is changed. `ask`: the
    questions before that. `before_asking`: called between the login and these. `about`: returns the
    words about a plan that has to be confirmed, and becomes a generation of the host; None for
    other plans.
    `afterwards`: returns the questions after everything is applied, from the outcome so far.
    `only`: ids and roles to reduce the plan to; empty for the whole plan. `fence`: the number of a
    rollout's lease, 0 without one. The last three are for the error of a resource that fails.
    `places`: the code of each role. `trouble`: the words before the agent's. `next`: the step to
    take.
    """

    verb: Verb
    plan: Callable[[Session], Iterable[Resource] | Stored]
    ask: Ask = NOTHING
    before_asking: Callable[[], object] = lambda: None
    afterwards: Callable[[Outcome], Ask] = lambda _: NOTHING
    about: Callable[[Plan], Mapping[str, str]] | None = None
    only: Sequence[str] = ()
    fence: int = 0
    places: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""
    next: str = ""

    @property
    def mode(self) -> Mode:
        """Return whether the host is changed, prepared, or only compared."""
        return _MODES.get(self.verb, "apply")

    def arm(self, plan: Plan | Stored) -> Mapping[str, Any] | None:
        """Return what arms the plan, None for one that needs no confirmation."""
        if self.mode == "check":
            return None
        if isinstance(plan, Stored):
            return {"verb": self.verb, "about": dict(plan.about)}
        verb = f"{self.verb} --only" if self.only else self.verb
        return {"verb": verb, "about": dict(self.about(plan))} if self.about else None

    def failed(self, host: str, failure: Failure) -> ResourceFailed:
        """Return the error of a resource that failed on that host."""
        return ResourceFailed(
            ": ".join(filter(None, (self.trouble, failure.what))),
            host=host,
            where=" -> ".join(filter(None, (self.places.get(failure.role), failure.id))),
            why=failure.why,
            next=self.next,
        )


@dataclass
class Outcome:
    """The result of a run.

    `counts` has the keys ok, changed, failed, skipped. `facts` are those from before the changes,
    with the answers to the questions asked afterwards. `left`: the ids that a prepared host leaves
    for its cut-over. `generation`: the one that the host is at, as far as it was reported, else 0.
    `drift`, `stays`: the ids of files that were edited by hand since, and of things that a way back
    does not bring back. `astray`: what failed on a way back.
    `about`: the words of a plan that has to be confirmed.
    """

    host: str
    mode: Mode
    counts: Mapping[str, int]
    facts: Facts
    log: Path
    changed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    astray: list[Failure] = field(default_factory=list)
    generation: int = 0
    drift: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    stopped: str = ""
    is_going_back: bool = False
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether nothing failed and everything was reached."""
        return not self.failures and not self.stopped

    @property
    def has_gone_back(self) -> bool:
        """Return whether the end of a way back was reported, well or badly."""
        return self.is_going_back and bool(self.generation or self.astray)

    def hear(self, event: Event, roles: Mapping[str, str]) -> None:
        """Take an event of the agent in. `roles`: by the id of a resource."""
        kind = event["event"]
        if kind == "result" and event["status"] == "changed" and not self.is_going_back:
            self.changed.append(event["id"])
        elif kind == "result" and event["status"] == "skipped" and self.mode == "prepare":
            self.left.append(event["id"])
        elif kind == "result" and event["status"] == "failed":
            failure = Failure(event["id"], event["what"], event["why"], roles.get(event["id"], ""))
            (self.astray if self.is_going_back else self.failures).append(failure)
        elif kind in ("armed", "done"):
            self.stopped = self.stopped or event["stopped"]
        elif kind == "stored":
            self.drift, self.stays = event["drift"], event["stays"]
        elif kind == "going_back":
            self.is_going_back, self.stays = True, event["stays"]
        elif kind in ("kept", "back"):
            self.generation = event["generation"]


Judge = Callable[[Outcome, Session], None]


class RunLog:
    """The log of a run: `<runs>/<host>/<time>-<verb>-<pid>.jsonl`.

    It holds every event. Only its owner can read it.
    """

    def __init__(self, folder: Path, host: str, verb: Verb) -> None:
        """Open the file. Raises CacheError when it cannot be written."""
        self.started = time.time()
        stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(self.started))
        # Two runs may begin in one second, and a host tells them apart, and their order, by this.
        self.run_id = f"{stamp}-{verb}-{int(self.started % 1 * 1e6):06}"
        self.path = folder / host / f"{self.run_id}.jsonl"
        with cache.access_to(folder):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file: TextIO = os.fdopen(handle, "w")

    def write(self, event: Mapping[str, Any]) -> None:
        """Write the event as one line and flush it, so that the log of a killed run is complete."""
        self._file.write(json.dumps({"at": round(time.time(), 3), **event}, sort_keys=True) + "\n")
        self._file.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            what = str(error) or type(error).__name__
            self.write({"event": "error", "what": what, "why": getattr(error, "why", "")})
        self._file.close()


def converge(
    login: Login,
    job: Job,
    *,
    runs: Path,
    on_event: OnEvent | None = None,
    on_session: Callable[[Session], None] | None = None,
    judge: Judge | None = None,
) -> Outcome:
    """Make the host as `job.plan` says, or in check mode compare it. Write a log below `runs`.

    The outcome's facts hold the answers to `job.afterwards`. `on_session` gets the session as soon
    as there is one, so that the caller can stop it. `judge` gets an armed plan, and keeps it or
    takes it back; without a judge it is left as it is. A resource that fails is in the outcome.
    Raises CacheError, and what Session, compile_plan, the job and the judge raise.
    """
    with RunLog(runs, login.name, job.verb) as log:
        outcome: Outcome
        roles: dict[str, str] = {}

        def hear(event: Event) -> None:
            log.write(event)
            if event["event"] not in ("hello", "facts", "history"):
                outcome.hear(event, roles)
            if on_event is not None:
                on_event(event)

        with Session(
            login,
            ask=job.ask,
            run_id=log.run_id,
            on_event=hear,
            fence=job.fence,
            before_asking=job.before_asking,
        ) as session:
            if on_session is not None:
                on_session(session)
            outcome = Outcome(login.name, job.mode, {}, session.facts, log.path)
            with made_of_facts(login.name):
                wanted = job.plan(session)
                outcome.facts = session.facts  # the plan may have asked for more
                plan = wanted if isinstance(wanted, Stored) else _compiled(job, wanted)
            arm = job.arm(plan)
            outcome.about = arm["about"] if arm else {}
            if isinstance(plan, Plan):
                roles |= {resource.id: resource.role for resource in plan.resources}
                counted = {"resources": len(plan.resources), "roles": roles}
                hear({"event": "plan", "id": plan.id, "mode": job.mode, **counted})
                outcome.counts = session.apply(plan, arm=arm)
            else:
                hear({"event": "plan", "id": plan.plan, "mode": job.mode, "resources": 0, "roles": roles})
                outcome.counts = session.bring_back(plan, mode=job.mode, arm=arm)
            with made_of_facts(login.name):
                more = job.afterwards(outcome) if outcome.ok and job.mode == "apply" else NOTHING
            if more != NOTHING:
                outcome.facts = session.ask(more)
            if session.is_armed:
                (judge or leave)(outcome, session)
        return outcome


def _compiled(job: Job, resources: Iterable[Resource]) -> Plan:
    return compile_plan(resources, mode=job.mode, only=job.only)


def leave(_: Outcome, session: Session) -> None:
    """Leave an armed plan as it is, unconfirmed."""
    session.leave()
