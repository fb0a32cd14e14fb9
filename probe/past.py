"""The proofs of a relay over time: a line for each, days, and since when it is as it is. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

from probe.proof import LADDER, Proof

KEPT_DAYS = 90
SHOWN_DAYS = 30


@dataclass(frozen=True)
class Entry:
    """A proof in short. `at`: its start, in UTC. `broken`: its first broken rung, "" if it held."""

    at: datetime
    ok: bool
    packets_passed: bool
    broken: str
    ms: float

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


def line(proof: Proof) -> str:
    """Return a proof as a line of the history, with its line break."""
    failed = proof.failed_rung
    short = {
        "at": proof.at, "ok": proof.ok, "packets_passed": proof.packets_passed,
        "failed": failed.name if failed else None, "ms": round(proof.ms, 1),
    }
    return json.dumps(short) + "\n"


def entries(text: str) -> list[Entry]:
    """Return the proofs of a history, oldest first.

    A line that a dead run has torn is left out. Of a proof that was kept twice, as when the map was
    compared later, the last line counts.
    """
    found = {entry.at: entry for one in text.splitlines() if (entry := _entry(one)) is not None}
    return sorted(found.values(), key=lambda entry: entry.at)


def _entry(text: str) -> Entry | None:
    try:
        said = json.loads(text)
        at = datetime.fromisoformat(said["at"]).astimezone(UTC)
        return Entry(
            at, bool(said["ok"]), bool(said["packets_passed"]), str(said["failed"] or ""), float(said["ms"])
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def without_old(text: str, now: datetime) -> str:
    """Return the history without the lines of proofs that are too old to be kept."""
    oldest = now - timedelta(days=KEPT_DAYS)
    lines = text.splitlines(keepends=True)
    return "".join(one for one in lines if (entry := _entry(one)) is not None and entry.at >= oldest)


def is_due(text: str, now: datetime) -> bool:
    """Whether the first line of a history is a day older than any that is kept."""
    first = _entry(text.partition("\n")[0])
    return first is None or first.at < now - timedelta(days=KEPT_DAYS + 1)


def changes(found: Sequence[Entry]) -> list[Entry]:
    """Return the proofs that differ in their result from the one before, newest first."""
    pairs = pairwise([None, *found])
    return [now for before, now in pairs if now and (before is None or before.words != now.words)][::-1]


def since(found: Sequence[Entry]) -> datetime | None:
    """Return since when the relay holds, or does not; None without a proof."""
    begins = None
    for entry in reversed(found):
        if entry.ok != found[-1].ok:
            break
        begins = entry.at
    return begins


def days(found: Sequence[Entry], today: date) -> Iterator[Day]:
    """Yield the last 30 days, oldest first, `today` as the last one."""
    for back in range(SHOWN_DAYS - 1, -1, -1):
        day = today - timedelta(days=back)
        of_day = [entry for entry in found if entry.at.date() == day]
        yield Day(day, len(of_day), sum(not entry.ok for entry in of_day))
