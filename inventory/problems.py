"""The problems of a site file: one line each, and all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inventory.errors import DerpfleetError


@dataclass(frozen=True)
class Problem:
    """A problem of a site file.

    `path` is dotted (`hosts.hk1.region.id`, or "" for the whole file); `line` counts from 1.
    """

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        return place + (f"{self.path}: " if self.path else "") + self.message


class SiteError(DerpfleetError):
    """The site file is wrong; no host was contacted.

    `problems` has all problems that were found, in the order of their lines.
    """

    exit_code = 4

    def __init__(self, file: str | Path, problems: Iterable[Problem], *, next: str = "") -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.line or 0, problem.path)))
        count = len(self.problems)
        super().__init__(
            f"the site file has {'a problem' if count == 1 else f'{count} problems'}; no host was contacted",
            where=str(file),
            why="\n".join(map(str, self.problems)),
            next=next or f"correct {file} and run the same command again",
        )
