"""How many clients a restart of their relay cut, how many came back, how many were refused. Pure.

They are counted in the relay's metrics, where every program has the same names. Only our relay
counts refusals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from relay.core.reasons import Answer

_CLIENTS = re.compile(r"^derp_clients_local (\d{1,9})\b", re.M | re.A)
_STARTED = re.compile(r"^process_start_unix_time ([\d.]{1,20})", re.M | re.A)
_SAMPLE = re.compile(r"^(\d{1,9}) (\d{1,12}(?:\.\d{1,9})?) (\d{1,12}(?:\.\d{1,9})?)$", re.M | re.A)
_ADMISSION = re.compile(r'^relay_admissions\{reason="(\w{1,64})"\} (\d{1,15})$', re.M | re.A)
_REFUSED = frozenset(str(each) for each in Answer if each.meaning.startswith("refused"))
_ADMITTED = frozenset(
    str(each) for each in Answer if each.meaning.startswith("admitted") and each != Answer.IN_PROBER_KEYS
)


@dataclass(frozen=True)
class Admissions:
    """The answers about clients since a relay's start: those that were asked for, those refused."""

    asked: int
    refused: int

    @property
    def share(self) -> float:
        """The share of refusals, 0 to 1."""
        return self.refused / self.asked if self.asked else 0.0


@dataclass(frozen=True, kw_only=True)
class CutOver:
    """The clients of one restart.

    `cut`: those that were there before. `back`: those that were there again, when it was last
    looked. `seconds`: from the relay's start to the look that found so many; None when none came
    back. The first look is after the proofs, so it may be later than their return.
    """

    cut: int
    back: int
    seconds: float | None

    def __str__(self) -> str:
        clients = f"{self.cut:,} client{'s' * (self.cut != 1)} cut"
        if self.seconds is None:
            return f"{clients}, none came back yet"
        return f"{clients}, {self.back:,} of them back within {self.seconds:.1f} s of the relay's start"


def clients_on(page: str) -> int:
    """Return the number of clients on a page of metrics; 0 when it is not there."""
    return known_clients(page) or 0


def known_clients(page: str) -> int | None:
    """Return the number of clients on a page of metrics; None when it is not there."""
    found = _CLIENTS.search(page)
    return int(found[1]) if found else None


def admissions_on(page: str, *, strangers: int = 0) -> Admissions | None:
    """Return the answers about clients on a page of metrics; None when it has none.

    `strangers`: those of our proofs, which were refused as they should be.
    """
    counts = {reason: int(count) for reason, count in _ADMISSION.findall(page)}
    refused = sum(count for reason, count in counts.items() if reason in _REFUSED)
    refused = max(0, refused - strangers)
    admitted = sum(count for reason, count in counts.items() if reason in _ADMITTED)
    return Admissions(refused + admitted, refused) if counts else None


def counted(before: str, watched: str) -> CutOver | None:
    """Return the clients of a restart; None when there was no client, or no restart.

    `before`: the page of metrics from before. `watched`: the lines of
    `files/scripts/watch_clients.py`, which a host may have made up.
    """
    cut, start = clients_on(before), _STARTED.search(before)
    lines = [(int(clients), began, float(now)) for clients, began, now in _SAMPLE.findall(watched)]
    samples = [(clients, now - float(began)) for clients, began, now in lines if not _same(start, began)]
    if not cut or (lines and not samples):
        return None
    back = min(cut, max((clients for clients, _ in samples), default=0))
    seconds = next(s for clients, s in samples if clients >= back) if back else None
    return CutOver(cut=cut, back=back, seconds=None if seconds is None else max(0.0, seconds))


def _same(start: re.Match[str] | None, began: str) -> bool:
    return start is not None and start[1] == began
