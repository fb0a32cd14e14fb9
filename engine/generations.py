"""Generations: the plans that were confirmed on a host, as its agent reports them. Data, no I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from engine.facts import parsed

_Text = Annotated[str, Field(max_length=4096)]
_Words = Annotated[dict[_Text, Annotated[str, Field(max_length=1 << 16)]], Field(max_length=64)]
_Number = Annotated[int, Field(strict=True, ge=0, lt=1 << 53)]
_Moment = Annotated[float, Field(ge=0, le=1e11)]

_SHORT = 12  # hex digits of a hash, as files/agent/generations.py has it


def moment(at: float) -> str:
    """Return a time in words, in UTC. `at`: seconds since the epoch."""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A generation, without its resources.

    `at`: seconds since the epoch, by the host's clock. `about`: the words that the deploy gave it.
    `proof`: the words about its proof. `trouble`: why the host cannot read it; then the rest is
    empty.
    """

    number: _Number
    at: _Moment = 0.0
    who: _Text = ""
    verb: _Text = ""
    plan: _Text = ""
    about: _Words = field(default_factory=dict)
    proof: _Words = field(default_factory=dict)
    changes: _Number = 0
    trouble: _Text = ""

    def __str__(self) -> str:
        parts = (moment(self.at), self.who, self.about.get("release", ""))
        return f"{self.number} ({', '.join(filter(None, parts))})"


@dataclass(frozen=True, kw_only=True)
class UnconfirmedChanges:
    """The last changes of a host that nobody has confirmed; `plan` is "" when there are none."""

    plan: _Text = ""
    who: _Text = ""
    verb: _Text = ""
    since: _Moment = 0.0


@dataclass(frozen=True, kw_only=True)
class History:
    """The generations of a host, newest first.

    `since`: when the first of them all was confirmed, 0.0 if that is not known. `lost`: the ids of
    what was a file of others before us, whose content the host does not keep.
    """

    generations: Annotated[tuple[Generation, ...], Field(max_length=1000)]
    unconfirmed: UnconfirmedChanges
    since: _Moment = 0.0
    lost: Annotated[tuple[_Text, ...], Field(max_length=1000)] = ()

    @classmethod
    def parse(cls, raw: Any) -> History:
        """Return the history of the agent's event. Raises ValueError for another form."""
        history: History = parsed(cls, raw)
        return history

    @property
    def newest(self) -> int:
        """Return the number of the newest generation, 0 without one."""
        return self.generations[0].number if self.generations else 0

    @property
    def in_force(self) -> str:
        """Return in words which state the host is in."""
        newest = self.find(self.newest)
        if self.unconfirmed.plan:
            return f"changes of {self.unconfirmed.who} that nobody has confirmed"
        return f"generation {newest}" if newest else "no generation at all"

    def find(self, number: int) -> Generation | None:
        """Return the generation with that number."""
        return next((one for one in self.generations if one.number == number), None)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The newest generation of a host: its number, 0 without one, and the contents of all.

    `contents`: the beginnings of their hashes.
    """

    generation: _Number
    contents: Annotated[frozenset[_Text], Field(max_length=10_000)]

    @classmethod
    def parse(cls, raw: Any) -> Outline:
        """Return the outline of the agent's event. Raises ValueError for another form."""
        outline: Outline = parsed(cls, raw)
        return outline

    def has(self, sha256: str) -> bool:
        """Whether a generation has the content with this hash."""
        return sha256[:_SHORT] in self.contents


@dataclass(frozen=True)
class Stored:
    """A plan that the host has kept: generation `number`.

    `force`: overwrite files that were edited by hand since the newest generation. `about`: the
    words that the generation has. `removed`: the paths that a withdrawal has removed since, which
    is no edit by hand.
    """

    number: int
    plan: str
    about: Mapping[str, str]
    force: bool = False
    removed: Sequence[str] = ()
