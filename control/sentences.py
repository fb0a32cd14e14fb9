"""Lines that the control servers have in common."""

from __future__ import annotations

from collections.abc import Sequence

from control.contract import Reach
from control.derpmap import missing_pin
from inventory.model import Host


def with_certificates(reach: Reach, server: str, hosts: Sequence[Host]) -> list[Host]:
    """Return the hosts whose certificate clients can know, and show the regions of the others.

    They could not be in the map yet. `server`: the name for the lines.
    """
    pins = reach.pins(hosts)
    nameless = [host for host in hosts if missing_pin(host, pins)]
    for host in nameless:
        words = f"region {host.region.id}, once the certificate of {host.name} is there"
        reach.report.line(server, "would change", words)
    return [host for host in hosts if host not in nameless]


def region_stays(host: Host) -> str:
    """Return what happens to the region of a relay that is not proved."""
    return (
        "If an earlier deploy put its region into the map, the region stays there. "
        f"To take it out: invoke withdraw --host {host.name}"
    )


def has_former_id(host: Host, id: int) -> str:
    """Return how a region that the host had before leaves the map."""
    return (
        f"{host.name} is in the map as region {id}, too. "
        "The site file no longer has that id, but nodes may still use it: "
        f"run invoke withdraw --host {host.name}, "
        f"then invoke deploy --host {host.name}"
    )
