"""Count the clients that a restart of the relay cuts, and those that come back.

Both counts ride in the session of the restart. The second one is asked for only where clients were
cut.
"""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.run import NOTHING, Outcome
from engine.scripts import script
from engine.session import Session
from fleet.shared import running
from fleet.shared.fleet import Fleet
from fleet.shared.seen import as_in
from inventory.model import Host
from probe.cutover import CutOver, clients_on, counted, known_clients
from roles import relay

_BEFORE, _AFTER = "clients_before", "clients_after"
_NO_FIGURE = "how many clients the restart has cut is not known: the former relay's metrics did not answer"
PATIENCE_S = 12  # of the 20 s that a question may take; clients that were watched took 3 to 8 s


def ask_before(host: Host) -> Ask:
    """Return the question how many clients there are, and since when the relay runs."""
    return Ask(commands={_BEFORE: running.metrics_command(host)})


def ask_former(host: Host, session: Session) -> None:
    """Ask the relay that runs for its clients, when it is not as the site file has it.

    Its metrics are at another place then: where the newest generation has them. It costs turns only
    where the place of the site file does not answer. The facts have to answer `ask_before` and
    `relay.ASK_PORTS`.
    """
    if before(session.facts) or not (runs(session.facts) and session.newest.generation):
        return
    history = session.came_along or session.history()
    if newest := history.find(history.newest):
        session.ask(ask_before(as_in(host, newest.about)))


def clients_before(facts: Facts) -> int | None:
    """Return how many clients there were, by the answer to `ask_before`; None: not known."""
    return known_clients(before(facts))


def before(facts: Facts) -> str:
    """Return the relay's metrics from before the changes; "" when it did not answer."""
    return facts.said(_BEFORE)


def runs(facts: Facts) -> bool:
    """Whether a relay ran before the changes, of the present program or another."""
    return bool(before(facts)) or any(relay.is_ours(one, facts) for one in facts.listening)


def ask_after(host: Host, outcome: Outcome, *, patience_s: int = PATIENCE_S) -> Ask:
    """Return the question how many come back; `NOTHING` when no restart has cut any."""
    clients = clients_on(before(outcome.facts))
    if not clients or not _has_restarted(outcome):
        return NOTHING
    page = running.metrics_command(host)
    watch = (host.ssh.python, "-I", "-c", script("watch_clients"), str(clients), str(patience_s), *page)
    return Ask(commands={_AFTER: watch})


def _has_restarted(outcome: Outcome) -> bool:
    touched = {*outcome.changed, *(failure.id for failure in outcome.failures)}
    return not touched.isdisjoint(runner.RUNNING for runner in relay.RUNNER_MODULES.values())


def has_no_figure(outcome: Outcome) -> bool:
    """Whether a relay that ran was restarted, and had not said how many clients it had."""
    facts = outcome.facts
    return clients_before(facts) is None and runs(facts) and _has_restarted(outcome)


def samples(facts: Facts) -> str:
    """Return the answer of the host to `ask_after`, "" when it was not asked."""
    return facts.said(_AFTER)


def counted_in(facts: Facts, later: Facts) -> CutOver | None:
    """Return how many clients were cut, and came back; None when that was not asked for.

    `facts` have to answer `ask_before`, and `later` the question of `ask_after`.
    """
    return counted(before(facts), samples(later)) if _AFTER in later.commands else None


def show(
    fleet: Fleet, host: Host, found: CutOver | None, *, way_back: bool = False, no_figure: bool = False
) -> None:
    """Show how many clients were cut and came back. A no-op for None, unless there is `no_figure`.

    `way_back`: the restart was that of the former relay, whose clients the first one had cut.
    `no_figure`: see `has_no_figure`.
    """
    if found is None:
        if no_figure:
            fleet.report.line(host.name, "", _NO_FIGURE)
        return
    fleet.report.emit(
        event="clients",
        host=host.name,
        cut=found.cut,
        back=found.back,
        seconds=found.seconds,
        way_back=way_back,
    )
    fleet.report.line(host.name, "ok", f"after the way back: {found}" if way_back else str(found))
