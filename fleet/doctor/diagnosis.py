"""A diagnosis of `invoke doctor`: data, and its lines for people and machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.report import Report
from inventory.errors import DerpfleetError

CONTROLLER, SITE = "here", "site"
"""The names of the controller and of the site in diagnoses, beside the hosts' own."""
_WIDTH = 16
Status = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The state of one thing. `host`: its name; `check`: the thing that was looked at.

    `exit_code`: the command's, when this has failed.
    """

    host: str
    check: str
    status: Status
    what: str
    why: str = ""
    next: str = ""
    exit_code: int = 1


def of_error(host: str, check: str, error: DerpfleetError) -> Diagnosis:
    """Return the diagnosis that an error is."""
    why = "\n".join(filter(None, (error.where, error.why)))
    return Diagnosis(
        host=host, check=check, status="failed", what=error.what, why=why, next=error.next,
        exit_code=error.exit_code,
    )


def show(report: Report, one: Diagnosis) -> None:
    """Show a diagnosis, with the reason and the next step below it."""
    report.emit(
        event="diagnosis", host=one.host, check=one.check, status=one.status,
        what=one.what, why=one.why, next=one.next,
    )
    report.line(one.host, one.status, f"{one.check:<{_WIDTH}}  {one.what}")
    for word, text in (("why", one.why), ("next", one.next)):
        for number, line in enumerate(text.splitlines()):
            report.line(one.host, " ", f"{'' if number else word:>{_WIDTH}}  {line}")


def exit_code(found: list[Diagnosis]) -> int:
    """Return the command's exit code: the highest of those that failed, else 0."""
    return max((one.exit_code for one in found if one.status == "failed"), default=0)
