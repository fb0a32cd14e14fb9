"""Judge an armed plan by proofs from outside. Pure.

One proof that holds is enough. A relay has failed when three proofs in a row do not hold while
another relay, the control, is proved from here in the same seconds. Otherwise the fault may be our
own line: then nothing is kept, and no host is blamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

TRIES = 3
# The first rungs that a fault of our own line breaks as well.
_OURS_TOO = ("name", "tcp")


class Conclusion(StrEnum):
    """The end of the tries."""

    PROVED = "proved"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Try:
    """A proof and its control.

    `broken`: the name of the first broken rung, "" when the proof holds. `control`: whether the
    control was proved then; None without one.
    """

    broken: str
    control: bool | None = None


def judged(tries: Sequence[Try]) -> Conclusion | None:
    """Return the verdict, or None when another try is needed."""
    if any(not one.broken for one in tries):
        return Conclusion.PROVED
    if len(tries) < TRIES:
        return None
    controls = [one.control for one in tries if one.control is not None]
    if controls:
        return Conclusion.FAILED if all(controls) else Conclusion.INCONCLUSIVE
    is_ours_too = any(one.broken in _OURS_TOO for one in tries)
    return Conclusion.INCONCLUSIVE if is_ours_too else Conclusion.FAILED
