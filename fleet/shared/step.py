"""Run one job on one host: show what happens there, and raise the verb's own error when a resource fails."""

from __future__ import annotations

import time

from engine.events import Event
from engine.login import Login
from engine.run import Job, Outcome, Step, converge
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError


def step(fleet: Fleet, login: Login, job: Step, *, doing: str = "connecting", counts: bool = True) -> Outcome:
    """Run a job under Ctrl-C, as `run` does. Raises what `job.failed` makes of the first resource that failed."""
    outcome = fleet.parallel.run_one(lambda: run(fleet, login, job, doing=doing, counts=counts))
    for failure in outcome.failures:
        raise job.failed(failure)
    return outcome


def run(fleet: Fleet, login: Login, job: Job, *, doing: str = "connecting", counts: bool = True) -> Outcome:
    """Run a job, show its events and its counts, and keep its log. Work for `Parallel.each`, which stops its session on Ctrl-C.

    `doing`: what the live line says until there is something to tell. Raises DerpfleetError for everything that is no failed resource.
    """

    def show(event: Event) -> None:
        fleet.report.agent_event(login.name, event)

    started = time.monotonic()
    fleet.report.doing(login.name, doing)
    try:
        outcome = converge(login, job, runs=fleet.runs, on_event=show, on_session=fleet.parallel.watch)
    except DerpfleetError:
        fleet.report.doing(login.name, "")
        raise
    if counts:
        fleet.report.counts(login.name, outcome.counts, checking=job.mode == "check", seconds=time.monotonic() - started)
    return outcome
