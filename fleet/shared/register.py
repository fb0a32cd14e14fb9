"""Register proved relays, and compare the map that clients get with their proofs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from control.contract import ControlServer
from control.served import Served
from fleet.shared.fleet import Fleet
from fleet.shared.prove import compare_map, was_proved
from inventory.model import Host
from probe.proof import Proof


def register(fleet: Fleet, server: ControlServer, proofs: Mapping[str, Proof]) -> bool:
    """Register the relays of these proofs, by the host's name. Raises ResourceFailed.

    Returns whether the map that clients get then agrees with the proofs.
    """
    proved = [host for host in fleet.site.hosts.values() if host.name in proofs]
    served = put_into_map(fleet, server, proved)
    return served is None or compare_map(fleet, proved, proofs, served)


def put_into_map(fleet: Fleet, server: ControlServer, proved: Sequence[Host]) -> Served | None:
    """Put the regions of these relays, as they are given, into the map that clients get.

    Returns that map; None when a person has to change it later. Raises ResourceFailed.
    """
    others = [host for host in fleet.site.hosts.values() if was_proved(fleet, host)]
    return server.register(proved, all_proved=others)
