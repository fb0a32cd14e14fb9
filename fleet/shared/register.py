"""Register proved relays, and compare the map that clients get with their proofs."""

from __future__ import annotations

from collections.abc import Mapping

from control.contract import ControlServer
from fleet.shared.fleet import Fleet
from fleet.shared.prove import compare_map, was_proved
from probe.proof import Proof


def register(fleet: Fleet, server: ControlServer, proofs: Mapping[str, Proof]) -> bool:
    """Register the relays of these proofs, by the host's name. Raises ResourceFailed.

    Returns whether the map that clients get then agrees with the proofs.
    """
    every = list(fleet.site.hosts.values())
    proved = [host for host in every if host.name in proofs]
    served = server.register(proved, all_proved=[host for host in every if was_proved(fleet, host)])
    return served is None or compare_map(fleet, proved, proofs, served)
