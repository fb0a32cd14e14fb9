"""`invoke derpmap`: the regions, for a control server that derpfleet does not change."""

from __future__ import annotations

import json
import sys

from control import derpmap as pure
from control.paste import instructions
from fleet.shared import pins
from fleet.shared.fleet import Fleet
from fleet.shared.prove import was_proved


def derpmap(fleet: Fleet) -> None:
    """Print the map on standard output, and where to paste it on standard error.

    Relays that are not proved are named.
    """
    known = pins.known(fleet, fleet.hosts(()))
    for host in fleet.hosts(()):
        if not was_proved(fleet, host):
            words = f"not proved: run this before you paste its region: invoke deploy --host {host.name}"
            fleet.report.line(host.name, "warning", words)
    print(json.dumps(pure.derpmap(fleet.site, pins=known), indent=2))
    print(instructions(fleet.site, pins=known), file=sys.stderr)
