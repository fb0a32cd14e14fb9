"""The contract of the fronts. A front is a module of this folder."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from engine.facts import Ask, Facts, Listener
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Caller, Challenge, Issued, ReloadTest
from roles.wiring import Use, Wiring


class Front(Protocol):
    """One kind of program in front of a relay."""

    ASK: Ask
    ASK_ABSENT: Ask  # what `absent` asks besides
    RELOAD: tuple[str, ...]  # the command after which a new certificate is served; () without TLS
    TEST: ReloadTest | None

    def challenge(self, host: Host, facts: Facts) -> Challenge:
        """Return how an ACME server's challenge is answered."""

    def http_resources(self, host: Host, facts: Facts, certificate: Issued) -> list[Resource]:
        """Return the server of the http port.

        It is there before the certificate, unless a running one answers `challenge` already.
        """

    def https_resources(self, host: Host, facts: Facts, certificate: Issued, relay: str) -> list[Resource]:
        """Return the server that has the certificate. The last resource needs all the others.

        `relay`: the id of the running relay.
        """

    def replaced(self, wiring: Wiring, facts: Facts) -> list[Resource]:
        """Return what a host with another front has in place of this one: its ports are free.

        The list is empty when the front is not on the host.
        """

    def absent(self, facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return the removal of all that the front may ever have put on a host, after `needs`."""

    def test_units(self) -> list[Resource]:
        """Return the units that `TEST` starts."""

    def absent_test_units(self) -> list[Resource]:
        """Return the removal of those units."""

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return the reasons against the front, as sentences that say what to do."""

    def warnings(self, host: Host, facts: Facts) -> list[str]:
        """Return what is wrong with the front now and goes with a deploy, as sentences."""

    def absence_refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return the reasons against `replaced` and `absent`, as sentences that say what to do."""

    def shares(self, listener: Listener, use: Use, facts: Facts) -> bool:
        """Whether the listener is this front's program, which serves that port or leaves it."""

    def open_ports(self, facts: Facts) -> Collection[tuple[str, int]]:
        """Return (protocol, port) of the other sites that this front's program serves."""

    def other_sites(self, facts: Facts) -> list[str]:
        """Return the URLs of those sites."""

    def callers(self, facts: Facts) -> list[Caller]:
        """Return who on the host connects to the relay; nothing where that is not known."""
