"""The proofs of a relay over time: a line for each, days, and since when it is as it is. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from probe.proof import LADDER, Proof

KEPT_DAYS = 90
TIME = "%Y-%m-%d %H:%M UTC"
"""The form of a moment, for people."""
SHOWN_DAYS = 30


@dataclass(frozen=True)
class Entry:
    """A proof in short. `at`: its start, in UTC. `broken`: its first broken rung, "" if it held.

    `since`: the first proof of those that held, or did not, one after the other up to this one.
    """

    at: datetime
    ok: bool
    packets_passed: bool
    broken: str
    ms: float
    since: datetime

    @property
    def words(self) -> str:
        """Return the result for people."""
        if self.ok:
            return "proved" if self.packets_passed else "reached"
        return f"broken: {LADDER.get(self.broken, 'not reached')}"


@dataclass(frozen=True)
class Day:
    """A day in UTC. `proofs`: how many there were; `broken`: how many of them did not hold."""

    day: date
    proofs: int
    broken: int

    @property
    def state(self) -> str:
        """Return ok, some (broken), bad (all broken), or none (no proof)."""
        if not self.proofs:
            return "none"
        if not self.broken:
            return "ok"
        return "bad" if self.broken == self.proofs else "some"


def line(proof: Proof, before: Entry | None = None) -> str:
    """Return a proof as a line of the history, with its line break. `before`: the last one there.

    It says since when the relay is as it is, so that nobody has to read the whole history for that.
    """
    failed = proof.failed_rung
    lasts = before is not None and before.ok == proof.ok
    short = {
        "at": proof.at, "ok": proof.ok, "packets_passed": proof.packets_passed,
        "failed": failed.name if failed else None, "ms": round(proof.ms, 1),
        "since": before.since.isoformat() if before and lasts else proof.at,
    }
    return json.dumps(short) + "\n"


def entries(text: str) -> list[Entry]:
    """Return the proofs of a history, oldest first.

    A line that a dead run has torn is left out. Of a proof that was kept twice, as when the map was
    compared later, the last line counts.
    """
    read = map(entry, text.splitlines())
    found = {one.at: one for one in read if one is not None}
    return sorted(found.values(), key=lambda one: one.at)


def entry(text: str) -> Entry | None:
    """Read a line; None when it is none."""
    try:
        said = json.loads(text)
        at, since = (datetime.fromisoformat(said[key]).astimezone(UTC) for key in ("at", "since"))
        broken, ms = str(said["failed"] or ""), float(said["ms"])
        return Entry(at, bool(said["ok"]), bool(said["packets_passed"]), broken, ms, since)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def without_old(text: str, now: datetime) -> str:
    """Return the history without the lines of proofs that are too old to be kept."""
    oldest = now - timedelta(days=KEPT_DAYS)
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if (one := entry(line)) is not None and one.at >= oldest)


def is_due(first: str, now: datetime) -> bool:
    """Whether the first line of a history is a day older than any that is kept."""
    one = entry(first)
    return one is None or one.at < now - timedelta(days=KEPT_DAYS + 1)


def changes(found: Sequence[Entry]) -> list[Entry]:
    """Return the proofs that differ in their result from the one before, newest first."""
    pairs = pairwise([None, *found])
    return [now for before, now in pairs if now and (before is None or before.words != now.words)][::-1]


def days(found: Sequence[Entry], today: date) -> Iterator[Day]:
    """Yield the last 30 days, oldest first, `today` as the last one."""
    proofs = Counter(one.at.date() for one in found)
    broken = Counter(one.at.date() for one in found if not one.ok)
    for back in range(SHOWN_DAYS - 1, -1, -1):
        day = today - timedelta(days=back)
        yield Day(day, proofs[day], broken[day])
