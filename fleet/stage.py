"""Where the checkout's lab lies, and how a verb gets into its network. Knows nothing else of it, so that it costs no verb anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent / ".lab"
SITE = ROOT / "site.yml"


def enter_network_of(site: Path) -> None:
    """Starts this very command again inside the lab's network, when the site is a lab's and we are not in there yet."""
    root = site.resolve().parent
    enter = root / "enter"
    if enter.exists() and os.environ.get("DERPFLEET_LAB") != str(root):
        os.execv(enter, [str(enter), sys.executable, *sys.argv])  # noqa: S606 - our own script, our own words
