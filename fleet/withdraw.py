"""`invoke withdraw`: take a relay out of service, and its regions out of the map."""

from __future__ import annotations

from dataclasses import asdict

from engine.run import Verb
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from fleet.shared.out_of_service import back_by, take_out_of_service
from inventory.model import Host
from roles.relay import OutOfService


def withdraw(fleet: Fleet, host: Host) -> int:
    """Stop the relay and take its regions out of the map. Steps that are done already are skipped.

    Returns the exit code. Raises NoOtherRelay, StillRuns, StillAtHome, ResourceFailed,
    Unreachable, Interrupted.
    """
    left = take_out_of_service(fleet, host, Verb.WITHDRAW, OutOfService.WITHDRAWN)
    control_server(fleet).take_out(host)
    fleet.report.emit(event="withdrawn", host=host.name, **asdict(left))
    fleet.report.line(host.name, "ok", f"withdrawn; {back_by(host, OutOfService.WITHDRAWN)} brings it back")
    return 0
