"""Ask the host of an armed plan what no proof from outside sees, in the session that is open."""

from __future__ import annotations

from engine.facts import asked
from engine.run import NOTHING, Outcome
from engine.session import Session
from fleet.shared import cut_over, running
from fleet.shared.verdict import Evidence, are_back
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.cutover import admissions_on, counted

# The last of the clients may need 30 s. A question may take 20 s, and Ctrl-C waits for its end.
_PATIENCES_S = (cut_over.PATIENCE_S, 9, 9)


def is_all_said(host: Host, outcome: Outcome, session: Session) -> bool:
    """Ask which release answers. Return whether `hear` could learn nothing that is against it.

    That is so where the program says that it is the new one, and no client was cut. It may be asked
    beside the proof, so that it costs no turn. A session that fails is the next question's.
    """
    if cut_over.ask_after(host, outcome) != NOTHING:
        return False
    try:
        found = running.running(session.ask(running.ask(host)))
    except DerpfleetError:
        return False
    return bool(running.own_words(outcome.about, found)) and not running.other_than(outcome.about, found)


def hear(host: Host, outcome: Outcome, session: Session, *, strangers: int) -> Evidence:
    """Return which release answers, which clients are back, and how many were refused.

    It costs one turn, and another where clients are late. `strangers`: those of our proofs since
    the plan was applied.
    """
    before, samples, clients = cut_over.before(outcome.facts), "", None
    for patience_s in _PATIENCES_S:
        session.hold()
        watch = cut_over.ask_after(host, outcome, patience_s=patience_s)
        facts = session.ask(asked(watch, running.ask(host)))
        if watch == NOTHING:
            break
        samples += cut_over.samples(facts)
        clients = counted(before, samples)
        if are_back(clients) or session.is_stopping:
            break
    return Evidence(
        other_release=running.other_than(outcome.about, running.running(facts)),
        clients=clients,
        before=admissions_on(before),
        since=admissions_on(running.page(facts), strangers=strangers) if clients else None,
    )
