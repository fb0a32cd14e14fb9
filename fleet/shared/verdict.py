"""Judge an armed plan: by proofs from outside, then by the words of its host. Pure.

One proof that holds is enough. A relay has failed when three proofs in a row do not hold while
another relay, the control, is proved from here in the same seconds. Otherwise the fault may be our
own line: the plan is held for three more times three proofs, and then nothing is kept, and no host
is blamed. A relay that was broken before has not failed as long as nothing more is broken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from probe.cutover import Admissions, CutOver
from probe.proof import Proof

TRIES = 3
HOLDS = 3
_PAUSE_S, _HELD_PAUSE_S = 5.0, 20.0  # three of the second, and a hold is over: 60 s
# The first rungs that a fault of our own line breaks as well.
_OURS_TOO = ("name", "tcp")
_FEW_CLIENTS = 5  # so few may all be away for reasons of their own
_BACK = 0.9
_MORE_REFUSED = 0.05
_FEW_QUESTIONS = 20  # of which 5 % are one


class Conclusion(StrEnum):
    """The end of the tries."""

    PROVED = "proved"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    STILL_BROKEN = "still broken"


@dataclass(frozen=True)
class Try:
    """A proof and its control.

    `broken`: the names of the broken rungs, in the ladder's order; () when the proof holds.
    `control`: whether the control was proved then; None without one.
    """

    broken: tuple[str, ...] = ()
    control: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The words of a host about the plan that it has applied.

    `other_release`: the one that answers, when it is not the new one. `clients`: None when no
    restart has cut any. `before`, `since`: the answers about clients before and since the cut-over;
    None where the program does not count them.
    """

    other_release: str = ""
    clients: CutOver | None = None
    before: Admissions | None = None
    since: Admissions | None = None


def broken_rungs(proof: Proof) -> tuple[str, ...]:
    """Return the names of the broken rungs: at least one when the proof does not hold."""
    found = tuple(rung.name for rung in proof.rungs if rung.status == "failed")
    return found or (() if proof.ok else ("handshake",))


def excused(before: Proof) -> frozenset[str]:
    """Return the rungs that may be broken after a cut-over, as they were not held before.

    These are the broken ones, and those after the first of them that were not reached.
    """
    if before.failed_rung is None:
        return frozenset()
    first = before.rungs.index(before.failed_rung)
    return frozenset(rung.name for rung in before.rungs[first:] if rung.status != "ok")


def judged(tries: Sequence[Try], excuse: Collection[str] = ()) -> Conclusion | None:
    """Return the verdict, or None when another try is needed. `excuse`: see `excused`."""
    if any(not one.broken for one in tries):
        return Conclusion.PROVED
    rounds, begun = divmod(len(tries), TRIES)
    if begun or not rounds:
        return None
    found = _of_round(tries[-TRIES:], excuse)
    return None if found is Conclusion.INCONCLUSIVE and rounds <= HOLDS else found


def _of_round(tries: Sequence[Try], excuse: Collection[str]) -> Conclusion:
    controls = [one.control for one in tries if one.control is not None]
    if not all(controls):
        return Conclusion.INCONCLUSIVE
    if all(set(one.broken) <= set(excuse) for one in tries):
        return Conclusion.STILL_BROKEN
    if not controls and any(one.broken[0] in _OURS_TOO for one in tries):
        return Conclusion.INCONCLUSIVE
    return Conclusion.FAILED


def pause_s(tries: Sequence[Try]) -> float:
    """Return the seconds until the next try."""
    return _PAUSE_S if len(tries) < TRIES else _HELD_PAUSE_S


def objection(said: Evidence) -> str:
    """Return why a proved plan is not kept, in words; "" when nothing is against it."""
    if said.other_release:
        return f"another release answers: {said.other_release}"
    if not are_back(said.clients):
        return f"the clients did not come back: {said.clients}"
    if said.before and said.since and said.since.asked >= _FEW_QUESTIONS:
        before, since = said.before.share, said.since.share
        if round(since - before, 6) > _MORE_REFUSED:
            return f"{since:.0%} of the clients are refused; before it were {before:.0%}"
    return ""


def are_back(clients: CutOver | None) -> bool:
    """Whether enough of the clients that were cut are back. Few are not asked for."""
    return clients is None or clients.cut < _FEW_CLIENTS or clients.back >= _BACK * clients.cut
