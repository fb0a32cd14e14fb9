"""Check the options that a person typed, before anything is done.

Each function raises DerpfleetError with the option's name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
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


def one_of(given: Mapping[str, object]) -> None:
    """Reject none or several of these options. `given`: their values by name."""
    if sum(map(bool, given.values())) != 1:
        raise DerpfleetError(f"give one of {' and '.join(given)}")


# The verbs that take --site, but `init`, whose commands are about a file that is still to be made.
_VERBS = (
    "bundle|check|deploy|derpmap|doctor|drain|history|logs|official|renew|rollback|rollout|status|trust|"
    "uninstall|verify|withdraw"
)
_COMMAND = re.compile(rf"\binvoke (?:{_VERBS})\b(?! --(?:site|address)\b)")


def with_site_file(text: str, site: str) -> str:
    """Return the text with `--site` in each of its commands, if it was given for this one."""
    return _COMMAND.sub(lambda found: f"{found[0]} --site {shlex.quote(site)}", text) if site else text


def refuse_stray(words: Sequence[str], valued: Mapping[str, Collection[str]], verbs: Collection[str]) -> None:
    """Reject a word that is no option, in place of invoke's `No idea what 'hk1' is!`.

    `valued`: the options that take a value, for each of the verbs that take no bare word.
    """
    options: Collection[str] | None = None
    for before, word in pairwise(["", *words]):
        if word in verbs and before not in (options or ()):
            options = valued.get(word)
        elif options is not None and not word.startswith("-") and before not in options and "." not in word:
            raise DerpfleetError(
                f"{word} is no option",
                next=f"if it is a host: --host {word}; `invoke --help VERB` shows the options of a verb",
            )


def refuse_bare(words: Sequence[str]) -> None:
    """Reject an option without its value.

    `--host $HOST` with HOST empty would otherwise select every host.
    """
    for word, following in pairwise([*words, "-"]):
        bare = word in ("--host", "-h", "--only", "-o", "--take") and following.startswith("-")
        if bare or (word.startswith("-") and not following) or (word.startswith("--") and word.endswith("=")):
            option = word.rstrip("=")
            raise DerpfleetError(
                f"{option} needs a value",
                why="an option without its value would be ignored",
                next=f"give a value, or leave {option} out",
            )
