"""`invoke lab.*`, and how other verbs get into the lab's network."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from engine.report import Report
from fleet.context import CHECKOUT
from inventory.errors import DerpfleetError

ROOT = CHECKOUT / ".lab"
SITE = ROOT / "site.yml"


def enter_network_of(site: Path) -> None:
    """Starts this very command again inside the lab's network, when the site is a lab's and we are not in there yet."""
    root = site.resolve().parent
    enter = root / "enter"
    if enter.exists() and os.environ.get("DERPFLEET_LAB") != str(root):
        os.execv(enter, [str(enter), sys.executable, *sys.argv])  # noqa: S606 - our own script, our own words


def up(report: Report) -> None:
    """Brings the lab up; says what it does and how long each thing took."""
    import lab

    started = time.monotonic()

    def progress(text: str) -> None:
        report.say(f"{time.monotonic() - started:6.1f} s  {text}")

    lab.up(ROOT, progress=progress)
    report.say(f"{time.monotonic() - started:6.1f} s  the lab is up; its site file is {SITE.relative_to(CHECKOUT)}")


def down(report: Report) -> None:
    """Takes the lab down; there may be none."""
    import lab

    lab.down(ROOT)
    report.say("the lab is down")


def status(report: Report) -> None:
    """What runs, a line each."""
    import lab

    for name, value in lab.status(ROOT).items():
        report.line(name, "", str(value))


def shell(report: Report, host: str) -> None:
    """Becomes a shell on a host, at a client's site, or in the lab's network. Raises DerpfleetError when the lab is not up."""
    import lab

    found = lab.load(ROOT)
    if found is None:
        raise DerpfleetError("the lab is not up", next="invoke lab.up")
    argv = [*found.enter_in(host or "controller"), "/bin/bash"]
    report.say(f"leave it with ctrl-d: {' '.join(argv[:3])} …")
    os.execvp(argv[0], argv)  # noqa: S606
