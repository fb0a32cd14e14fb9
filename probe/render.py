"""A proof as lines for a terminal.

Pure; colour is the caller's, by the word at the line's start.
"""

from __future__ import annotations

from probe.proof import LADDER, Proof, Rung, duration

_WIDTH = max(map(len, LADDER.values()))
_WORDS = {"ok": "ok", "failed": "FAILED", "skipped": "skipped"}
_INDENT = " " * 9
DETAIL = len(_INDENT) + _WIDTH + 2  # the column in which details begin


def ladder_lines(proof: Proof) -> list[str]:
    """Return one line a rung, with the cause and the next step below a broken one; the verdict
    last."""
    lines = [line for rung in proof.rungs for line in rung_lines(rung)]
    return [*lines, verdict(proof)]


def rung_lines(rung: Rung) -> list[str]:
    """Return the rung's line and, below it, its warning, cause and next step.

    `ok       TLS              TLSv1.3, by R11, 61 of 90 days left (68 %)  · 102 ms`
    """
    took = f"  · {duration(rung.ms)}" if rung.status != "skipped" else ""
    lines = [f"{_WORDS[rung.status]:<7}  {rung.title:<{_WIDTH}}  {rung.detail}{took}"]
    for word, text in (("warning", rung.warning), ("cause", rung.cause), ("next", rung.next)):
        if text:
            lines.append(f"{_INDENT}{word:>{_WIDTH}}  {text}")
    return lines


def verdict(proof: Proof) -> str:
    """Return the result of the whole ladder in one line."""
    broken = proof.failed_rung
    took = duration(proof.ms)
    if broken is not None:
        return f"NOT PROVED in {took}: {broken.title} is broken ({broken.cause})"
    if not proof.ok:
        return f"NOT PROVED in {took}: no rung is broken, but the relay was not reached from here"
    if not proof.packets_passed:
        return f"proved in {took}, except that packets pass: {proof['packets'].detail}"
    return f"PROVED in {took}: packets pass"
