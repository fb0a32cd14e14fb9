"""Count the clients that a deploy's restart of the relay cuts, and those that come back.

Both counts ride in the deploy's own session. The second one is asked for only where clients were
cut.
"""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.run import NOTHING, Outcome
from engine.scripts import script
from fleet.shared.fleet import Fleet
from inventory.model import Host
from probe.cutover import CLIENTS, clients_on, counted
from roles import relay

_PATIENCE_S = 12  # of the 20 s that a question may take; clients that were watched took 3 to 8 s


def ask_before(host: Host) -> Ask:
    """Return the question how many clients there are, and since when the relay runs."""
    return Ask(commands={"clients_before": _metrics(host)})


def clients_before(facts: Facts) -> int | None:
    """Return how many clients there were, by the answer to `ask_before`; None: not known."""
    found = CLIENTS.search(_said(facts, "clients_before"))
    return int(found[1]) if found else None


def ask_after(host: Host, outcome: Outcome) -> Ask:
    """Return the question how many come back; `NOTHING` when no restart has cut any."""
    before = clients_on(_said(outcome.facts, "clients_before"))
    if not before or relay.chosen_runner(host).RUNNING not in outcome.changed:
        return NOTHING
    words = (str(before), str(_PATIENCE_S), *_metrics(host))
    return Ask(commands={"clients_after": (host.ssh.python, "-I", "-c", script("watch_clients"), *words)})


def show(fleet: Fleet, host: Host, facts: Facts) -> None:
    """Show how many clients were cut and came back. A no-op when that was not asked for."""
    if "clients_after" not in facts.commands:
        return
    found = counted(_said(facts, "clients_before"), _said(facts, "clients_after"))
    if found is None:
        return
    fleet.report.emit(
        event="clients", host=host.name, cut=found.cut, back=found.back, seconds=found.seconds
    )
    fleet.report.line(host.name, "ok", str(found))


def _metrics(host: Host) -> tuple[str, ...]:
    return (host.ssh.python, "-I", "-c", *relay.metrics(host))


def _said(facts: Facts, name: str) -> str:
    found = facts.commands.get(name)
    return found.stdout if found else ""
