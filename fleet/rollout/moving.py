"""Move a relay to another port, address or flavour: its nodes find another one first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from control.served import Served
from engine.run import Verb
from engine.session import Stopped
from fleet.rollout.under_way import UnderWay
from fleet.shared.control_server import control_server
from fleet.shared.errors import Interrupted
from fleet.shared.out_of_service import NotInMap, take_out_of_service
from fleet.shared.register import put_into_map
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles.relay import OutOfService


class NotLeft(DerpfleetError):
    """The nodes of a mover did not leave it. It may be stopped."""


def leave(under_way: UnderWay, host: Host) -> None:
    """Stop a mover as a drain does, and wait until its nodes have moved. Its region stays.

    A relay without another one goes on: its nodes could not move. So does one that no map has.
    Raises NotLeft, Interrupted, Stopped.
    """
    if not under_way.serving(host):
        return

    def proved(others: Sequence[Host], _: Served) -> bool:
        return under_way.proves_any(under_way.serving(host, among=[one.name for one in others]))

    fleet, fence = under_way.fleet, under_way.fence
    try:
        left = take_out_of_service(
            fleet, host, Verb.DRAIN, OutOfService.DRAINED, fence=fence, proved=proved
        )
    except (Interrupted, Stopped):
        raise
    except NotInMap:
        return
    except DerpfleetError as error:
        raise NotLeft(str(error)) from error
    fleet.report.emit(event="drained", host=host.name, **asdict(left))


def restore_region(under_way: UnderWay, then: Host) -> str:
    """Put the former region of a mover that is back into the map. Return the trouble, or ""."""
    fleet = under_way.fleet
    try:
        put_into_map(fleet, control_server(fleet), [then])
    except DerpfleetError as error:
        fleet.report.failure(error)
        return f"it is back, and the map does not have its former place: {error.what}"
    return ""
