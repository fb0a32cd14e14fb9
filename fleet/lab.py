"""`invoke lab.up`, `lab.down`, `lab.status` and `lab.shell`."""

from __future__ import annotations

import os
import time

import lab
from engine.report import Report
from fleet.shared.site_choice import ROOT, SITE
from inventory.checkout import CHECKOUT
from inventory.errors import DerpfleetError


def up(report: Report) -> None:
    """Bring the lab up, and show each step with the seconds since the start."""
    started = time.monotonic()

    def progress(text: str) -> None:
        report.say(f"{time.monotonic() - started:6.1f} s  {text}")

    lab.up(ROOT, progress=progress)
    site = SITE.relative_to(CHECKOUT)
    report.say(f"{time.monotonic() - started:6.1f} s  the lab is up; its site file is {site}")


def down(report: Report) -> None:
    """Take the lab down, if there is one."""
    lab.down(ROOT)
    report.say("the lab is down")


def status(report: Report) -> None:
    """Show a line for each part of the lab: whether it runs, and where."""
    found = lab.status(ROOT)
    if not found["parts"]:
        report.say("there is no lab here: invoke lab.up")
        return
    for name, part in found["parts"].items():
        words = [part[key] for key in ("domain", "address") if key in part]
        if "client" in part:
            words.append("tailscale client " + ("runs" if part["client"] else "not started"))
        report.line(name, "up" if part["alive"] else "down", "  ".join(words))
    report.say(f"network {found['network']} in the namespace {found['namespace']}")


def shell(report: Report, host: str) -> None:
    """Become a shell on a host, at a client's site, or in the lab's network.

    Raises DerpfleetError when the lab is not up.
    """
    found = lab.load(ROOT)
    if found is None:
        raise DerpfleetError("the lab is not up", next="invoke lab.up")
    argv = [*found.enter_in(host or "controller"), "/bin/bash"]
    report.say(f"leave it with ctrl-d: {' '.join(argv[:3])} …")
    os.execvp(argv[0], argv)  # noqa: S606
