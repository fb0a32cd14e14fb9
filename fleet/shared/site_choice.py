"""Find the site file. If it is the lab's, run the verb again inside the lab's network namespace.

Imports almost nothing, so verbs start fast.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from inventory.checkout import CHECKOUT

ROOT = CHECKOUT / ".lab"
SITE = ROOT / "site.yml"
OWN = CHECKOUT / "inventory" / "site.yml"
_AGAIN = CHECKOUT / "fleet" / "shared" / "run_again.py"


def chosen(given: str) -> Path:
    """Return the path of the site file, whether it exists or not.

    It is the given one; else the lab's, if there is one and the checkout has no site file; else the
    checkout's, whatever the current folder is.
    """
    if given:
        return Path(given)
    return SITE if SITE.exists() and not OWN.exists() else Path(os.path.relpath(OWN))


def enter_network_of(site: Path) -> None:
    """Start this command again inside the lab's network, if the site is in this checkout's lab.

    A no-op inside that network. The `enter` of any other folder is never run: a site file is data,
    and may have been sent by a stranger.
    """
    enter = ROOT / "enter"
    is_labs = site.resolve().parent == ROOT.resolve() and enter.exists()
    if is_labs and os.environ.get("DERPFLEET_LAB") != str(ROOT):
        argv = [str(enter), sys.executable, str(_AGAIN), str(ROOT.parent), *sys.argv]
        os.execv(enter, argv)  # noqa: S606 - our own script, our own words
