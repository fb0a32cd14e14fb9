"""`invoke derpmap`: the regions, printed or put into the site's map."""

from __future__ import annotations

import json
import sys

from control import derpmap as pure
from control.paste import instructions
from fleet.shared import pins
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from fleet.shared.prove import was_proved
from inventory.model import Host


def derpmap(fleet: Fleet) -> None:
    """Print the map on standard output, and where to paste it on standard error.

    Relays that are not proved are named.
    """
    known = pins.known(fleet, fleet.hosts(()))
    _proved(fleet, "run this before you paste its region")
    print(json.dumps(pure.derpmap(fleet.site, pins=known), indent=2))
    print(instructions(fleet.site, pins=known), file=sys.stderr)


def push(fleet: Fleet) -> int:
    """Put every proved relay into the map of the site's control server. Returns the exit code.

    Raises as the control server's `register` does.
    """
    proved = _proved(fleet, "its region is left as it is; run")
    if not proved:
        fleet.report.say("No relay of this site is proved, so there is nothing to put into the map.")
        return 1
    control_server(fleet).register(proved, all_proved=proved)
    return 0


def _proved(fleet: Fleet, step: str) -> list[Host]:
    """Return the proved relays, and name the others. `step`: the words before the command."""
    proved = []
    for host in fleet.hosts(()):
        if was_proved(fleet, host):
            proved.append(host)
        else:
            words = f"not proved: {step}: invoke deploy --host {host.name}"
            fleet.report.line(host.name, "warning", words)
    return proved
