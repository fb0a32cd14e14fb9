"""Find the site file. If it is the lab's, run the verb again inside the lab's network. Imports almost nothing, so verbs start fast."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inventory.checkout import CHECKOUT

ROOT = CHECKOUT / ".lab"
SITE = ROOT / "site.yml"
OWN = CHECKOUT / "inventory" / "site.yml"
# What .venv/bin/invoke does, and Ctrl-C ends it without a word while that is imported. `signal` itself would be imported too long.
_AGAIN = """
import _signal, sys
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
sys.path[0] = sys.argv[1]
del sys.argv[:2]
from invoke.main import program
program.run()
"""


def chosen(given: str) -> Path:
    """The site file that was given, there or not; else the checkout's own, wherever we stand; else the lab's, when there is one."""
    if given:
        return Path(given)
    return SITE if SITE.exists() and not OWN.exists() else Path(os.path.relpath(OWN))


def enter_network_of(site: Path) -> None:
    """Starts this very command again inside the lab's network, when the site lies in this checkout's lab and we are not in there yet.

    No other folder's `enter` is run: a site file is data, whoever sent it.
    """
    enter = ROOT / "enter"
    if site.resolve().parent == ROOT.resolve() and enter.exists() and os.environ.get("DERPFLEET_LAB") != str(ROOT):
        os.execv(enter, [str(enter), sys.executable, "-c", _AGAIN, str(ROOT.parent), *sys.argv])  # noqa: S606 - our own script, our own words
