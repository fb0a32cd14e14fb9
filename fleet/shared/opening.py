"""Begin and end a verb: its site, its report, its exit code.

`tasks.py` imports this module, so everything else is imported only when a verb runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Collection, Exit, Task
from invoke import task as plain_task

from fleet.shared import interrupt

if TYPE_CHECKING:
    from engine.report import Report
    from fleet.shared.fleet import Fleet
    from inventory.errors import DerpfleetError

DEFAULT_SITE = "inventory/site.yml"
HOST = "one host of the site; may be given several times (default: all, in the order of the site file)"
FILE = f"the site file (default: $DERPFLEET_SITE, then {DEFAULT_SITE}, then the lab's)"
JSON = "print JSON lines on standard output, for machines"
HOSTS = {"host": HOST, "site": FILE, "json": JSON}
# The one-letter options. Each means the same in every verb; other options have no letter.
_LETTERS = {
    "host": "h", "site": "s", "json": "j", "only": "o", "force": "f",
    "address": "a", "ca": "c", "dry-run": "d", "diff": "i", "lines": "l", "pin": "p", "relay": "r",
}


class LetteredTask(Task[Any]):
    """A task whose one-letter options are those of `_LETTERS`. invoke would make up its own."""

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Return the settings of one option, with its names."""
        found = super().arg_opts(name, default, taken_names)
        word, *_ = found["names"]
        found["names"] = [word, *_LETTERS.get(word, "")]
        return found


task = partial(plain_task, klass=LetteredTask)


def with_site(
    site: str,
    verb: Callable[[Fleet], int | None],
    *,
    json: bool = False,
    diffs: bool = False,
    aside: bool = False,
) -> None:
    """Run a verb on the loaded site. Raises Exit with its code, if that is not 0."""
    import inventory
    from fleet.shared import site_choice
    from fleet.shared.fleet import Fleet

    path = site_choice.chosen(site or os.environ.get("DERPFLEET_SITE", ""))
    site_choice.enter_network_of(path)

    def on_site(report: Report) -> int | None:
        if path == site_choice.SITE:
            why = f"as there is no {DEFAULT_SITE} and none was given"
            report.say(f"In the lab: {os.path.relpath(path)}, {why}")
        return verb(Fleet(inventory.load(path), report))

    _with_report(on_site, json=json, diffs=diffs, aside=aside, site=site)


def with_report(verb: Callable[[Report], int | None], *, json: bool = False) -> None:
    """Run a verb that needs no site. Raises Exit with its code, if that is not 0."""
    _with_report(verb, json=json, diffs=False, aside=False, site="")


def collected(verbs: Sequence[Task[Any]], lab: Collection) -> Collection:
    """Return all verbs for invoke. Raises Exit for a word that no verb takes."""
    if Path(sys.argv[0]).name in ("invoke", "inv") and any(word[:1] != "-" for word in sys.argv[2:]):
        _refuse_stray(verbs)
    return Collection(*verbs, lab)


def _refuse_stray(verbs: Sequence[Task[Any]]) -> None:
    from fleet.shared import options
    from inventory.errors import DerpfleetError

    valued = {
        verb.name: [
            f"{'-' if len(name) == 1 else '--'}{name.replace('_', '-')}"
            for one in deepcopy(verb).get_arguments()  # it takes the help texts out of the task
            if one.takes_value
            for name in one.names
        ]
        for verb in verbs
        if not verb.positional
    }
    try:
        options.refuse_stray(sys.argv[1:], valued, [verb.name for verb in verbs])
    except DerpfleetError as error:
        with_report(partial(_failed, error))


def _failed(error: DerpfleetError, report: Report) -> int:
    report.failure(error)
    return error.exit_code


def _with_report(
    verb: Callable[[Report], int | None], *, json: bool, diffs: bool, aside: bool, site: str
) -> None:
    with _reporting(json=json, diffs=diffs, aside=aside, site=site) as report:
        code = verb(report)
        if code:
            raise Exit(code=code)


@contextmanager
def _reporting(*, json: bool, diffs: bool, aside: bool, site: str) -> Iterator[Report]:
    """Yield a report. A DerpfleetError inside is shown on it and becomes an exit code.

    `site`: the site file that was given, which the commands in our words repeat.
    `aside`: report on standard error, because the verb prints data on standard output.
    """
    from rich.console import Console

    from engine.report import Report
    from fleet.shared.options import refuse_bare, with_site_file
    from inventory.errors import DerpfleetError

    console = Console(stderr=True, highlight=False, soft_wrap=True) if aside else None
    commands = partial(with_site_file, site=site)
    report = Report(json_lines=json, diffs=diffs, console=console, commands=commands)
    try:
        with interrupt.raised(), report:
            refuse_bare(sys.argv[1:])
            yield report
    except DerpfleetError as error:
        report.failure(error)
        raise Exit(code=error.exit_code) from None
    except KeyboardInterrupt:
        report.say("interrupted")
        raise Exit(code=interrupt.CODE) from None
