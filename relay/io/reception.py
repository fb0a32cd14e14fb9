"""The relay as a connection sees it before its client is admitted."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from relay.io.link import Link, Owner

if TYPE_CHECKING:
    from relay.core.addresses import AddressTable, Ticket
    from relay.core.handshake import ClientInfo, Introduction
    from relay.core.reasons import Refusal
    from relay.core.session import Session
    from relay.core.stats import Tally
    from relay.http.proxy_header import TrustedProxies
    from relay.io.gate import Gate
    from relay.keys.node_key import NodeKey


class Reception(Owner, Protocol):
    """The part of the relay that receives connections."""

    key: NodeKey
    tally: Tally
    arrivals: dict[Any, None]  # of Arrival, which imports this module
    addresses: AddressTable
    proxies: TrustedProxies
    handshake_timeout_s: float

    @property
    def admission(self) -> Gate:
        """Return the gate that clients have to pass."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> object:
        """Run `work` for one connection."""

    def refuses_connection(self, *, main: bool) -> Refusal | None:
        """Return the reason why a new connection is refused, or None."""

    def refuses_client(self, info: ClientInfo) -> Refusal | None:
        """Return the reason why a new client is refused, or None."""

    def is_mesh_peer(self, info: ClientInfo) -> bool:
        """Whether a client proved that it knows the mesh key."""

    def admit(
        self, link: Link, who: Introduction, ticket: Ticket | None, *, peer: tuple[str, int], not_ideal: bool
    ) -> Session:
        """Register a client."""
