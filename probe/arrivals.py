"""A time-out, explained: the packets are lost before the relay's host, or in its own firewall.

The host counts what arrives, before its firewall, while the ports are asked again.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from probe.net import family
from probe.proof import Proof, Rung, with_rung
from probe.target import Part, Target
from relay.core.stun import TXID_LEN, pack_request

_PAUSE_S = 0.4


@dataclass(frozen=True)
class Unanswered:
    """A port that did not answer in time, as a rung's data has it."""

    proto: str
    address: str
    port: int

    @property
    def name(self) -> str:
        """Return it as files/scripts/count_arrivals.py names it."""
        return f"{self.proto}/{6 if ':' in self.address else 4}/{self.port}"


@dataclass(frozen=True)
class Arrivals:
    """The packets of one port in some seconds: those that arrived, and the host's answers."""

    arrived: int
    answered: int


def unanswered(rung: Rung) -> Unanswered | None:
    """Return the port for whose answer a broken rung has waited in vain."""
    found = rung.data.get("unanswered") if rung.status == "failed" else None
    return Unanswered(**found) if found else None


def read_arrivals(printed: str) -> dict[str, Arrivals]:
    """Return the arrivals by the port's name. Raises ValueError, TypeError for any other text."""
    return {str(name): Arrivals(*map(int, pair)) for name, pair in dict(json.loads(printed)).items()}


def knock(places: Iterable[Unanswered], enough: Callable[[], bool]) -> None:
    """Send first packets to these ports until it is enough. Whatever comes back is ignored."""
    while not enough():
        with ExitStack() as sockets:
            for place in places:
                kind = socket.SOCK_STREAM if place.proto == "tcp" else socket.SOCK_DGRAM
                with suppress(OSError):
                    each = sockets.enter_context(socket.socket(family(place.address), kind))
                    each.setblocking(False)
                    each.connect_ex((place.address, place.port))
                    if place.proto == "udp":
                        each.send(pack_request(os.urandom(TXID_LEN)))
            time.sleep(_PAUSE_S)


def explained(target: Target, proof: Proof, counted: dict[str, Arrivals]) -> Proof:
    """Return the proof; its time-outs say where the packets are lost."""
    for rung in proof.rungs:
        place = unanswered(rung)
        if place is not None and place.name in counted:
            proof = with_rung(proof, _explained(target, rung, place, counted[place.name]))
    return proof


def _explained(target: Target, rung: Rung, place: Unanswered, found: Arrivals) -> Rung:
    port, number = f"{place.port}/{place.proto}", _packets(found.arrived)
    if not found.arrived:
        cause = "no packet arrives at the host: the provider's security group drops them"
        step = f"open {', '.join(_ports(target))} in the provider's console, then {target.again}"
    elif not found.answered:
        silent = ", or the relay is silent" if place.proto == "udp" else ""
        cause = f"the host's own firewall drops it ({number} arrived){silent}"
        step = target.redeploy(Part.FIREWALL, f"open {port} on the host")
    else:
        cause = (
            f"{number} arrived at the host, and it answers on {port}: "
            "a packet filter on the way, or of this controller's network, lets only some through"
        )
        step = f"try from another network: {target.again}"
    return replace(rung, cause=cause, next=step)


def _packets(number: int) -> str:
    return f"{number} packet{'s' if number != 1 else ''}"


def _ports(target: Target) -> list[str]:
    found = [(target.https_port, "tcp"), (target.http_port, "tcp"), (target.stun_port, "udp")]
    return [f"{port}/{proto}" for port, proto in found if port is not None]
