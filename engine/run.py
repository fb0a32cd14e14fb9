"""One run on one host: connect, ask, compile, converge, log. The same code for check and deploy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from engine import cache
from engine.events import Event
from engine.facts import Ask, Facts
from engine.login import Login
from engine.plan import Mode, compile_plan
from engine.resource import Resource
from engine.session import OnEvent, Session

Compile = Callable[[Session], Iterable[Resource]]


@dataclass(frozen=True)
class Failure:
    """A resource that did not converge, in the agent's words."""

    id: str
    what: str
    why: str


@dataclass
class Outcome:
    """What a run did. `counts` has the keys ok, changed, failed, skipped. `facts`: those of before, and what was asked afterwards."""

    host: str
    mode: Mode
    counts: Mapping[str, int]
    facts: Facts
    log: Path
    changed: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    stopped: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)  # resource id -> its role

    @property
    def ok(self) -> bool:
        """Nothing failed and everything was reached."""
        return not self.failures and not self.stopped


class RunLog:
    """`<runs>/<host>/<time>-<verb>-<pid>.jsonl`: every event of a run, readable by its owner only."""

    def __init__(self, folder: Path, host: str, verb: str) -> None:
        """Raises CacheError where it cannot be written."""
        self.started = time.time()
        stamp = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime(self.started))
        self.run_id = f"{stamp}-{verb}-{os.getpid()}"
        self.path = folder / host / f"{self.run_id}.jsonl"
        with cache.ours(folder):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file: TextIO = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w")

    def write(self, event: Mapping[str, Any]) -> None:
        """One line a call, flushed, so that a run that is cut leaves what it saw."""
        self._file.write(json.dumps({"at": round(time.time(), 3), **event}, sort_keys=True) + "\n")
        self._file.flush()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self.write({"event": "error", "what": str(error) or type(error).__name__, "why": getattr(error, "why", "")})
        self._file.close()


def converge(
    login: Login,
    compile_: Compile,
    *,
    ask: Ask,
    mode: Mode,
    runs: Path,
    verb: str = "run",
    only: Sequence[str] = (),
    afterwards: Callable[[Facts], Ask] | None = None,
    on_event: OnEvent | None = None,
    on_session: Callable[[Session], None] | None = None,
) -> Outcome:
    """Makes the host as `compile_` says, or in check mode compares it.

    `compile_` gets the session, with the facts that `ask` asked for, and may ask further or raise a DerpfleetError before
    anything is changed. `afterwards`: what to ask once everything is applied, given the facts of before; the outcome's facts then hold
    the answers. `verb`: what a person asked for; the run is named by it. `on_session` gets the session as soon as there is one, so that
    it can be stopped from outside.
    Raises CacheError and what Session and compile_plan raise; a resource that fails is in the outcome.
    """
    with RunLog(runs, login.name, verb) as log:
        outcome: Outcome

        def hear(event: Event) -> None:
            log.write(event)
            if event["event"] == "result":
                if event["status"] == "changed":
                    outcome.changed.append(event["id"])
                elif event["status"] == "failed":
                    outcome.failures.append(Failure(event["id"], event["what"], event["why"]))
            elif event["event"] == "done":
                outcome.stopped = event["stopped"]
            if on_event is not None:
                on_event(event)

        with Session(login, ask=ask, run_id=log.run_id, on_event=hear) as session:
            if on_session is not None:
                on_session(session)
            plan = compile_plan(compile_(session), mode=mode, only=only)
            roles = {resource.id: resource.role for resource in plan.resources}
            outcome = Outcome(login.name, mode, {}, session.facts, log.path, roles=roles)
            hear({"event": "plan", "id": plan.id, "mode": mode, "resources": len(plan.resources), "roles": roles})
            outcome.counts = session.apply(plan)
            if afterwards is not None and outcome.ok:
                outcome.facts = session.ask(afterwards(session.facts))
        return outcome
