"""Check the options that a person typed, before anything is done.

Each function raises DerpfleetError with the option's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from inventory.errors import DerpfleetError


def number(text: str, option: str, *, most: int) -> int:
    """Return the number that was typed, 0 to `most`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= most):
        raise DerpfleetError(f"{option} takes a number up to {most}, not {text!r}")
    return int(text)


def refuse(reason: str, given: Mapping[str, object]) -> None:
    """Reject options that would be ignored silently. `given`: their values by name."""
    for option, value in given.items():
        if value:
            raise DerpfleetError(f"{option} {reason}")


def refuse_bare(words: Sequence[str]) -> None:
    """Reject an option without its value.

    `--host $HOST` with HOST empty would otherwise select every host.
    """
    for word, following in pairwise([*words, "-"]):
        bare = word in ("--host", "-h", "--only", "-o") and following.startswith("-")
        if bare or (word.startswith("-") and not following) or (word.startswith("--") and word.endswith("=")):
            option = word.rstrip("=")
            raise DerpfleetError(
                f"{option} needs a value",
                why="an option without its value would be ignored",
                next=f"give a value, or leave {option} out",
            )
