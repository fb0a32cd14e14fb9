"""`DERPFLEET_OFFLINE=1`: the controller fetches nothing, and uses what it has, as from a bundle."""

from __future__ import annotations

import os

from inventory.errors import DerpfleetError

VARIABLE = "DERPFLEET_OFFLINE"
BUNDLE_STEP = (
    "on a machine with a network and this checkout and site file: invoke bundle --out derpfleet.bundle "
    "--host … for this host, or for one of the same release and architecture; "
    "then here: invoke bundle --use derpfleet.bundle"
)


class Offline(DerpfleetError):
    """Something is not at hand, and may not be fetched."""


def is_offline() -> bool:
    """Whether the operator forbids all network but SSH and the proof."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def before_fetching(thing: str) -> None:
    """Raise Offline if nothing may be fetched. `thing`: its name with an article."""
    if is_offline():
        why = f"{VARIABLE} is set, so nothing is fetched"
        raise Offline(f"{thing} is not at hand", why=why, next=BUNDLE_STEP)
