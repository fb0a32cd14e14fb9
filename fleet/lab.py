"""`invoke lab.*`."""

from __future__ import annotations

import os
import time

import lab
from engine.report import Report
from fleet.context import CHECKOUT
from fleet.stage import ROOT, SITE
from inventory.errors import DerpfleetError


def up(report: Report) -> None:
    """Brings the lab up; says what it does and how long each thing took."""
    started = time.monotonic()

    def progress(text: str) -> None:
        report.say(f"{time.monotonic() - started:6.1f} s  {text}")

    lab.up(ROOT, progress=progress)
    report.say(f"{time.monotonic() - started:6.1f} s  the lab is up; its site file is {SITE.relative_to(CHECKOUT)}")


def down(report: Report) -> None:
    """Takes the lab down; there may be none."""
    lab.down(ROOT)
    report.say("the lab is down")


def status(report: Report) -> None:
    """What runs, a line each."""
    for name, value in lab.status(ROOT).items():
        report.line(name, "", str(value))


def shell(report: Report, host: str) -> None:
    """Becomes a shell on a host, at a client's site, or in the lab's network. Raises DerpfleetError when the lab is not up."""
    found = lab.load(ROOT)
    if found is None:
        raise DerpfleetError("the lab is not up", next="invoke lab.up")
    argv = [*found.enter_in(host or "controller"), "/bin/bash"]
    report.say(f"leave it with ctrl-d: {' '.join(argv[:3])} …")
    os.execvp(argv[0], argv)  # noqa: S606
