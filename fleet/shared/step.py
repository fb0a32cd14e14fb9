"""Run one job on one host: show its events, and raise the error of a resource that fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from engine.login import Login
from engine.run import Failure, Job, Judge, Outcome, converge, leave
from engine.session import Session
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError

CHANGES_FOUND = 10
"""The exit code of a comparison that found something to change."""


def step(fleet: Fleet, login: Login, job: Job, *, doing: str = "connecting", counts: bool = True) -> Outcome:
    """Run a job as `run` does, and let Ctrl-C stop it.

    Raises Interrupted, and ResourceFailed for the first resource that failed.
    """
    outcome = fleet.parallel.run_one(lambda: run(fleet, login, job, doing=doing, counts=counts))
    for failure in outcome.failures:
        raise job.failed(login.name, failure)
    return outcome


def show_failures(fleet: Fleet, job: Job, outcome: Outcome, failures: Sequence[Failure]) -> None:
    """Show these failures of the outcome as the job's errors, with the run's log."""
    for failure in failures:
        error = job.failed(outcome.host, failure)
        fleet.report.failure(error, log=str(outcome.log), subject=failure.id)


def run(
    fleet: Fleet,
    login: Login,
    job: Job,
    *,
    doing: str = "connecting",
    counts: bool = True,
    judge: Judge | None = None,
) -> Outcome:
    """Run a job, show its events and its counts, and keep its log.

    Call it as the work of `Parallel.each`, which stops its session on Ctrl-C. `doing`: the words of
    the live line until the first event. `judge`: of an armed plan. Raises DerpfleetError, but not
    for a failed resource.
    """
    show, started = partial(fleet.report.agent_event, login.name), time.monotonic()
    told: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        """Show the counts once: of an armed plan before its proof."""
        if counts and not told:
            told.append(outcome)
            took_s = time.monotonic() - started
            fleet.report.counts(login.name, outcome.counts, seconds=took_s)

    def on_armed(outcome: Outcome, session: Session) -> None:
        tell(outcome)
        (judge or leave)(outcome, session)

    fleet.report.doing(login.name, doing)
    watch = fleet.parallel.watch
    try:
        outcome = converge(
            login, job, runs=fleet.runs, on_event=show, on_session=watch, judge=on_armed
        )
    except DerpfleetError:
        fleet.report.doing(login.name, "")
        raise
    tell(outcome)
    return outcome
