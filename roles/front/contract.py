"""What each front provides. A front is a module of this folder."""

from __future__ import annotations

from typing import Protocol

from engine.facts import Ask, Facts
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Challenge, Issued, ReloadTest
from roles.wiring import Wiring


class Front(Protocol):
    """One way to stand in front of a relay."""

    ASK: Ask
    RELOAD: tuple[str, ...]  # the command after which a new certificate is served; () where the front has no TLS
    TEST: ReloadTest | None

    def challenge(self, host: Host) -> Challenge:
        """Return how an ACME server's challenge is answered."""

    def http_resources(self, host: Host, facts: Facts) -> list[Resource]:
        """Return what answers on the http port, before there is a certificate."""

    def https_resources(self, host: Host, facts: Facts, certificate: Issued, relay: str) -> list[Resource]:
        """Return what serves the certificate; the last one stands for all of it. `relay`: the id of the running relay."""

    def absent(self, host: Host, wiring: Wiring, facts: Facts) -> list[Resource]:
        """Return what takes the front away; [] when nothing of it is there."""

    def test_units(self) -> list[Resource]:
        """Return the units that `TEST` starts."""

    def absent_test_units(self) -> list[Resource]:
        """Return what takes those units away."""

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return what stands in the way of the front, as sentences that say what to do."""

    def absence_refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return what stands in the way of `absent`, asked when there is something to take away."""

    def reached_at(self, facts: Facts, port: int) -> str:
        """Return where this host reaches what clients dial, as address:port."""
