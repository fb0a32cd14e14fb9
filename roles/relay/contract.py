"""What each flavour of the relay provides. A flavour is a module of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Health, Http, Resource
from inventory.model import Host, Site
from roles.contract import Question
from roles.wiring import LOOPBACK, Wiring


@dataclass(frozen=True, kw_only=True)
class Given:
    """What others provide for the relay.

    `ship`: what the controller made. `key`: the id of its key. `former`: the resources that take the other flavours away.
    `listens_after`: the ids that have to be done before it can listen. `front_at`: where this host reaches what clients dial, as
    address:port.
    """

    ship: Shipment
    key: str
    former: tuple[Resource, ...]
    listens_after: tuple[str, ...]
    front_at: str


class Flavour(Protocol):
    """One way to run a relay."""

    ASK: Ask
    RUNNING: str  # the id of the resource that stands for the running relay
    RELOAD: tuple[str, ...]  # the command after which a new certificate is served
    WITHDRAWN: Question  # whether the relay was taken out of service

    def ready_to_start(self, host: Host, ship: Shipment) -> tuple[str, ...]:
        """Return the ids after which the former flavour may stop, so that the time between them is short."""

    def resources(self, host: Host, site: Site, wiring: Wiring, facts: Facts, given: Given) -> list[Resource]:
        """Return what makes the relay run; `given.former` is among it."""

    def absent(self, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return what takes the relay away, after `needs`."""

    def stopped(self) -> list[Resource]:
        """Return what keeps the relay from listening, now and after a reboot. What is installed stays."""

    def refusals(self, host: Host, site: Site, wiring: Wiring, facts: Facts) -> list[str]:
        """Return what stands in the way of this flavour, as sentences that say what to do."""


def health(host: Host, wiring: Wiring) -> Health:
    """Return the question whether the relay answers for itself, front or no front."""
    port = wiring.relay.port
    if not wiring.relay_has_tls:
        return Http(url=f"http://{LOOPBACK}:{port}/derp/probe")
    return Http(url=f"https://{host.domain}:{port}/derp/probe", connect=f"{LOOPBACK}:{port}", insecure=True)
