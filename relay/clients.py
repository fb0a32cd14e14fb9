"""The clients of the relay: connections from their arrival to their end, and their admission."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final

from relay.admission import admission
from relay.config import Config
from relay.core.addresses import AddressTable, Ticket, parse_address
from relay.core.bucket import Bucket, RateConfig
from relay.core.handshake import ClientInfo, Introduction
from relay.core.reasons import REVOKED_BY, Refusal, WhyClosed
from relay.core.session import Session
from relay.core.stats import Tally
from relay.core.switch import Switch
from relay.http.proxy_header import TrustedProxies
from relay.io.arrival import Arrival
from relay.io.link import Link
from relay.io.loop import Loop
from relay.io.tick import Tick
from relay.keys.node_key import NodeKey
from relay.mesh.workers import Worker
from relay.sweep import Sweep

KNOWN_WITHIN_S: Final = 1.0


class Secrets:
    """The secrets with which other relays, and other workers of this one, prove themselves.

    They are None where there are no such relays or workers.
    """

    def __init__(self, mesh_key: bytes | None, worker: Worker | None) -> None:
        self.mesh_key = mesh_key
        self._sibling = worker.secret if worker is not None else None

    def is_sibling(self, info: ClientInfo) -> bool:
        """Whether a client proved to be another worker of this relay."""
        return _is_same(self._sibling, info.mesh_key)

    def is_mesh_peer(self, info: ClientInfo) -> bool:
        """Whether a client proved to know this relay's mesh key, or to be another worker."""
        return _is_same(self.mesh_key, info.mesh_key) or self.is_sibling(info)


class Clients:
    """The connections of one relay process.

    The reception of arrivals (io.arrival.Reception) and the owner of links (io.link.Owner).
    """

    def __init__(
        self,
        config: Config,
        loop: Loop,
        key: NodeKey,
        secrets: Secrets,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        *,
        worker: Worker | None = None,
    ) -> None:
        self.loop = loop
        self.key = key
        self.secrets = secrets
        self.spawn = spawn
        self.switch = Switch(loop.time, key.public)
        self.tally = Tally()
        self.tick = Tick(loop.time, loop.report, self.switch, self.tally)
        self.arrivals: dict[Arrival, None] = {}  # in the order in which they came
        self.links: dict[int, Link] = {}  # by serial number
        self.admission = admission.from_config(config)
        self.addresses = AddressTable(
            connections=config.connections_per_address,
            handshakes=config.handshakes_per_address,
            handshakes_in_all=config.handshakes_in_flight,
        )
        self.proxies = TrustedProxies(config.trusted_proxies, send_header=config.proxy_protocol)
        self.handshake_timeout_s = config.handshake_timeout_s
        self.limits = RateConfig()
        self.sweep = Sweep(
            loop,
            self.tally,
            self.switch.counts,
            self.arrivals,
            self.links,
            memory_ceiling_mib=config.memory_ceiling_mib,
            write_timeout_s=config.tcp_write_timeout_s,
        )
        self._disallowed_app_names = frozenset(config.disallow_app_names)
        self._accepts = Bucket(
            config.accept_connection_limit / config.workers,
            max(1, config.accept_connection_burst // config.workers),
            loop.time(),
        )
        # Of all workers no two give a connection the same number.
        self._serials = count(1) if worker is None else count(1 + worker.number, worker.count)
        self._tickets: dict[int, Ticket] = {}

    def limit(self, limits: RateConfig) -> None:
        """Put other limits in force, also for clients that are connected."""
        self.limits = limits
        now = self.loop.time()
        for link in self.links.values():
            if link.session is not None and not link.session.is_mesh:
                link.session.limiter = limits.limiter(now)

    async def watch_admission(self) -> None:
        """Hang up on clients that lost their admission, until cancelled."""
        async for key, _address, verdict in self.admission.revoked(self._who_and_where):
            peer = self.switch.peers.get(key)
            for session in [*peer.sessions] if peer else ():
                session.hang_up(REVOKED_BY[verdict.reason])

    def _who_and_where(self) -> list[tuple[bytes, str]]:
        return [
            (session.key, str(session.address or ""))
            for session in self.switch.sessions
            if not session.is_mesh
        ]

    # For arrivals.

    def refuses_connection(self, *, main: bool) -> Refusal | None:
        """Return why a new connection is not wanted, or None.

        The main listener has the limit, also where a proxy does its TLS.
        """
        if main:
            if not self._accepts.allow(self.loop.time()):
                self.switch.counts.tls_listener_rejected_connections += 1
                return Refusal.ACCEPT_LIMIT
            self.switch.counts.tls_listener_accepted_connections += 1
        return None

    def refuses_client(self, info: ClientInfo) -> Refusal | None:
        """Return why a new client is not wanted, or None. Not to be asked about mesh peers."""
        if info.app_name in self._disallowed_app_names:
            return Refusal.DISALLOWED_APP_NAME
        return Refusal.MEMORY_CEILING if self.sweep.full else None

    def is_mesh_peer(self, info: ClientInfo) -> bool:
        """Whether a client proved to know this relay's mesh key."""
        return self.secrets.is_mesh_peer(info)

    def admit(
        self, link: Link, who: Introduction, ticket: Ticket | None, *, peer: tuple[str, int], not_ideal: bool
    ) -> Session:
        """Register a client."""
        serial = next(self._serials)
        session = Session(
            self.switch,
            who.key,
            who.info,
            link,
            serial=serial,
            is_mesh=self.secrets.is_mesh_peer(who.info),
            sibling=self.secrets.is_sibling(who.info),
            not_ideal=not_ideal,
            address=parse_address(peer[0]),
            port=peer[1],
        )
        if not session.is_mesh:
            session.limiter = self.limits.limiter(self.loop.time())
        if ticket is not None:
            ticket.settle()
            self._tickets[serial] = ticket
        self.links[serial] = link
        self.sweep.add(link, serial)
        self.switch.register(session)
        return session

    # For links.

    def when_known(self, then: Callable[[], None]) -> None:
        """Call `then` when the other workers know all clients that are admitted by now.

        One that hangs keeps nobody out.
        """
        if question := self.switch.confirmations.ask(self.switch.siblings, then):
            self.loop.call_later(KNOWN_WITHIN_S, self.switch.confirmations.give_up, question)

    def link_ended(self, link: Link, reason: WhyClosed, code: int = 0) -> None:
        """Unregister the session, count why it ended, and release the rest."""
        session = link.session
        assert session is not None  # noqa: S101  (for the type checker)
        self.tally.closes.add(reason, code)
        del self.links[session.serial]
        self.sweep.unblock(link)
        if ticket := self._tickets.pop(session.serial, None):
            ticket.leave()
        self.switch.unregister(session)

    def link_blocked(self, link: Link) -> None:
        """Begin to measure for how long the kernel takes no bytes."""
        self.sweep.block(link)

    def link_unblocked(self, link: Link) -> None:
        """Stop measuring."""
        self.sweep.unblock(link)


def _is_same(ours: bytes | None, theirs: bytes | None) -> bool:
    return ours is not None and theirs is not None and hmac.compare_digest(theirs, ours)
