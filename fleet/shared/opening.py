"""Begin and end a verb: its site, its report, its exit code.

`tasks.py` imports this module, so everything else is imported only when a verb runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from invoke import Exit

from fleet.shared import interrupt

if TYPE_CHECKING:
    from engine.report import Report
    from fleet.shared.fleet import Fleet

DEFAULT_SITE = "inventory/site.yml"


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

    with_report(on_site, json=json, diffs=diffs, aside=aside)


def with_report(
    verb: Callable[[Report], int | None], *, json: bool = False, diffs: bool = False, aside: bool = False
) -> None:
    """Run a verb that needs no site. Raises Exit with its code, if that is not 0."""
    with _reporting(json=json, diffs=diffs, aside=aside) as report:
        code = verb(report)
        if code:
            raise Exit(code=code)


@contextmanager
def _reporting(*, json: bool, diffs: bool, aside: bool) -> Iterator[Report]:
    """Yield a report. A DerpfleetError inside is shown on it and becomes an exit code.

    `aside`: report on standard error, because the verb prints data on standard output.
    """
    from rich.console import Console

    from engine.report import Report
    from fleet.shared.options import refuse_bare
    from inventory.errors import DerpfleetError

    console = Console(stderr=True, highlight=False, soft_wrap=True) if aside else None
    report = Report(json_lines=json, diffs=diffs, console=console)
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
