"""The clocks of this controller and of the relay's host, compared by the Date of an HTTP answer.

Pure; time is an argument.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from probe.certificate import Leaf

APART = timedelta(minutes=5)
"""Clocks that differ by less are right enough for certificates."""


def ahead_of(date: str | None, now: datetime) -> timedelta | None:
    """Return how far the Date of an answer is ahead of `now`; None when there is no such date."""
    try:
        return parsedate_to_datetime(date or "").astimezone(UTC) - now
    except (ValueError, TypeError, OverflowError, OSError):
        return None


def apart(ahead: timedelta | None) -> str:
    """Return `the relay's clock is 2 hours behind this controller's`; "" if they agree."""
    if ahead is None or abs(ahead) < APART:
        return ""
    way = "ahead of" if ahead > timedelta() else "behind"
    size = abs(ahead)
    units = ((timedelta(days=1), "days"), (timedelta(hours=1), "hours"), (timedelta(minutes=1), "minutes"))
    unit, word = next((unit, word) for unit, word in units if size >= 2 * unit or word == "minutes")
    return f"the relay's clock is {size / unit:.0f} {word} {way} this controller's"


def wrong_here(leaf: Leaf, ahead: timedelta | None, now: datetime) -> bool:
    """Whether this controller's clock is the wrong one: the leaf is valid by the relay's only."""
    if ahead is None or not apart(ahead):
        return False
    return leaf.not_before <= now + ahead <= leaf.not_after and not leaf.not_before <= now <= leaf.not_after
