"""Prepare a host: all that its cut-over needs is there then, and nothing in service has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from engine.generations import History, Stored
from engine.login import Unreachable
from engine.resource import Resource
from engine.rollout.state import EventKind, RolloutEvent
from engine.run import Outcome, Verb
from engine.session import Session, Stopped
from fleet.rollout.under_way import UnderWay
from fleet.shared import cut_over
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import LeftWithdrawn, left_withdrawn
from fleet.shared.host_status import read_status
from fleet.shared.locks import once_free
from fleet.shared.seen import as_kept, moved
from fleet.shared.step import run, show_failures
from inventory.choices import flavour_name
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import relay

_AGAIN_S = 5.0  # after a connection that was cut


def prepare(under_way: UnderWay, host: Host, verb: Verb) -> RolloutEvent:
    """Prepare the host, or with the verb `check` only compare it. Return the event of it.

    Raises Interrupted, Stopped.
    """
    fleet, known, words = under_way.fleet, list[History](), dict[str, str]()
    job = under_way.job(host, verb, words)
    wanted = job.plan

    def plan(session: Session) -> Iterable[Resource] | Stored:
        known.append(session.history())
        under_way.remember(host, known[-1].find(known[-1].newest))
        return wanted(session)

    def once() -> Outcome:
        counts = verb is Verb.CHECK  # they end the host's lines, which are held back meanwhile
        return run(fleet, fleet.login(host), replace(job, plan=plan), counts=counts)

    try:
        outcome = _despite_a_cut(fleet, host, once, known)
    except (Interrupted, Stopped):
        raise
    except LeftWithdrawn as error:
        left_withdrawn(fleet, host, error.state)
        return RolloutEvent(kind=EventKind.SKIPPED, host=host.name, why=str(error.state))
    except DerpfleetError as error:
        return _unprepared(under_way, host, error)
    fleet.report.doing(host.name, "")
    show_failures(fleet, job, outcome, outcome.failures)
    if outcome.failures:
        what = outcome.failures[0].what
        return RolloutEvent(kind=EventKind.UNPREPARED, host=host.name, why=what, code=1)
    return _prepared(under_way, host, outcome, known[-1], words)


def _despite_a_cut(
    fleet: Fleet, host: Host, prepare_once: Callable[[], Outcome], begun: Sequence[History]
) -> Outcome:
    """Prepare the host, and once more when its connection is cut. What came by then is kept there.

    `begun`: it is not empty once the host has answered. Raises as `run` does.
    """
    try:
        return prepare_once()
    except Unreachable as error:
        if not begun:
            raise
        fleet.report.line(host.name, "once more", f"nothing in service has changed: {error.what}")
    time.sleep(_AGAIN_S)
    return once_free(fleet.report, host.name, prepare_once)  # the agent may end a resource first


def _unprepared(under_way: UnderWay, host: Host, error: DerpfleetError) -> RolloutEvent:
    error.host = error.host or host.name
    if isinstance(error, Unreachable) and under_way.head.skip_unreachable:
        under_way.fleet.report.line(host.name, "skipped", f"not reachable: {error.what}")
        return RolloutEvent(kind=EventKind.SKIPPED, host=host.name, why="unreachable")
    under_way.fleet.report.failure(error)
    return RolloutEvent(kind=EventKind.UNPREPARED, host=host.name, why=error.what, code=error.exit_code)


def _prepared(
    under_way: UnderWay, host: Host, outcome: Outcome, history: History, words: dict[str, str]
) -> RolloutEvent:
    """Return the event. Changes that nobody has confirmed need a cut-over as well."""
    report, plan = under_way.fleet.report, words.get("plan", "")
    if plan and under_way.head.refused.get(host.name) == plan:
        why = "in the last rollout it was not proved with this very plan"
        step = "change it first, or try it once more: invoke rollout --again"
        report.failure(DerpfleetError("not cut over again", host=host.name, why=why, next=step))
        return RolloutEvent(kind=EventKind.UNPREPARED, host=host.name, why=why, code=1)
    before = under_way.state.hosts[host.name].plan
    if before and plan != before:
        shown = f"{_short(before)} before, {_short(plan)} now: the site file or the checkout has changed"
        report.line(host.name, "other plan", shown)
    changes = outcome.counts["changed"] + outcome.counts["skipped"] or int(bool(history.unconfirmed.plan))
    clients = cut_over.clients_before(outcome.facts) or 0
    restarts = relay.chosen_runner(host).RUNNING in outcome.left
    cut = f", restarts the relay ({clients:,} client{'s' * (clients != 1)})" if restarts else ""
    shown = f"{changes} change{'s' * (changes != 1)}{cut}" if changes else "0 changes: left alone"
    report.line(host.name, "prepared" if outcome.mode == "prepare" else "compared", shown)
    then, _ = as_kept(host, history.find(history.newest))
    if apart := moved(host, then) if changes else []:
        moving = f"alone, and not before its nodes have another relay: {'; '.join(apart)}"
        report.line(host.name, "moves", moving)
    return RolloutEvent(
        kind=EventKind.PREPARED,
        host=host.name,
        plan=plan,
        changes=changes,
        generation=history.newest,
        clients=clients,
        like=_kind(host, words.get("release", ""), outcome.facts.os_codename),
        near=_nearest(under_way, host),
        moves=bool(apart),
    )


def _kind(host: Host, release: str, codename: str) -> str:
    """Return which bytes and which code paths run there: hosts of one kind have one canary."""
    return ", ".join((release, flavour_name(host), host.front, host.certificate.source, codename))


def _short(plan: str) -> str:
    return plan.removeprefix("sha256:")[:8]


def _nearest(under_way: UnderWay, host: Host) -> str:
    """Return the host nearest to this one; "" where relays restart one by one: none is asked."""
    if under_way.state.policy.at_once == 1:
        return ""
    others = list(under_way.fleet.site.hosts.values())
    distances = read_status(under_way.fleet, host, others).distances_ms
    return min(distances, key=lambda name: distances[name], default="")
