"""DERP itself: our clients are greeted. Their admission is in `probe.handshake`.

The relay's own client code speaks the protocol; the judgements are here.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from inventory.secrets import Secret
from probe.certificate import Chain
from probe.net import BoundedStream, Flooded, Patience
from probe.proof import Broken, Found
from probe.target import Part, Target
from probe.tcp import Dialled
from probe.tls import open_tls
from probe.web import UNREACHED, authority, excerpt, unreached
from relay.client import Client, Event, Greeted, NotUpgraded, Pinged
from relay.core.handshake import ClientInfo, make_private_key
from relay.core.wire import ProtocolError

_HEAD = 4096
_HEADER_KEY = re.compile(rb"(?im)^derp-public-key:[ \t]*(?:nodekey:)?([0-9a-f]{64})[ \t]*\r?$")


class HungUp(Exception):
    """The relay closed the connection."""


class ProbeClient:
    """One of our DERP clients on a stream.

    `head`: the first bytes received, with the HTTP answer in them.

    Not `relay.client.Connection`: a proof has to say how far a broken greeting came, within bounds.
    """

    def __init__(self, stream: BoundedStream, client: Client) -> None:
        self.stream = stream
        self.client = client
        self.head = b""
        self.mark = os.urandom(12)  # of the packets that this client sends
        self._events: deque[Event] = deque()
        self._numbers = count()

    @property
    def key(self) -> bytes:
        """Our public key."""
        return self.client.public_key

    def take_number(self) -> int:
        """Return the number of the next packet that this client sends: 0, 1, 2 …"""
        return next(self._numbers)

    async def flush(self) -> None:
        """Send the bytes that the client has queued. Raises HungUp."""
        try:
            if data := self.client.outgoing():
                await self.stream.send(data)
        except OSError as error:
            raise HungUp(error.strerror or str(error)) from None

    async def next(self) -> Event:
        """Return the next event, answering the relay's pings on the way.

        Raises HungUp, ProtocolError, Flooded.
        """
        while True:
            while self._events:
                event = self._events.popleft()
                if not isinstance(event, Pinged):
                    return event
                self.client.pong(event.data)
                await self.flush()
            try:
                data = await self.stream.read()
            except OSError as error:
                raise HungUp(error.strerror or str(error)) from None
            if len(self.head) < _HEAD:
                self.head += data[:_HEAD]
            self._events.extend(self.client.receive(data))
            if not data:
                raise HungUp("end of stream")


@dataclass(frozen=True)
class Cast:
    """Our clients after the upgrade: a pair that exchanges packets, and a stranger if the relay
    knows the pair's keys."""

    pair: tuple[ProbeClient, ProbeClient]
    stranger: ProbeClient | None

    @property
    def all(self) -> tuple[ProbeClient, ...]:
        """The pair, and the stranger if there is one."""
        return self.pair if self.stranger is None else (*self.pair, self.stranger)

    async def leave(self, patience: Patience) -> None:
        """Close all connections."""
        if patience.leave_s:
            await asyncio.gather(*(peer.stream.end(patience.leave_s) for peer in self.all))
        for peer in self.all:
            peer.stream.close()


def ends(target: Target, addresses: Sequence[str]) -> list[str]:
    """Return the address that each client of the cast connects to, in their order.

    The second one does as real clients do: it uses IPv6 when the relay has it.
    """
    pair = [addresses[0], addresses[-1]]
    return [*pair, addresses[0]] if target.prover else pair


async def check_upgrade(
    target: Target, dialled: Sequence[Dialled], chain: Chain, patience: Patience
) -> Found[Cast]:
    """Upgrade each client of the cast; all have to be greeted with the same server key.

    `dialled`: a connection to each of `ends`. Raises Broken.

    The first client asks for the upgrade and waits. The second does as real clients do: with the
    fast start when the relay offers it.
    """
    mesh = (
        bytes.fromhex(target.prover.mesh_key.reveal()) if target.prover and target.prover.mesh_key else None
    )
    # The mesh key admits any key, and with fresh ones no other proof is given our packets.
    known = _private(target.prover.keys) if target.prover and not mesh else None
    keys = known or (make_private_key(), make_private_key())
    info = ClientInfo(mesh_key=mesh, is_prober=True)
    clients = [Client(keys[0], info), Client(keys[1], info, server_key=chain.derp_key)]
    if target.prover:
        clients.append(Client(make_private_key(), ClientInfo(is_prober=True)))
    first = dialled[0].address
    greetings = await asyncio.gather(
        *(
            _greeted(target, one, first, client, patience)
            for one, client in zip(dialled, clients, strict=True)
        ),
        return_exceptions=True,
    )
    peers = [peer for peer in greetings if isinstance(peer, ProbeClient)]
    faults = [fault for fault in greetings if isinstance(fault, BaseException)]
    try:
        if faults:
            raise faults[0]
        seen = [_server_key(target, peer, chain) for peer in peers]
        if len(set(seen)) > 1:
            raise Broken(
                f"{len(set(seen))} different server keys in {len(seen)} connections",
                cause="several relays behind one name: clients of one cannot reach those of the other",
                next=target.one_host,
            )
    except BaseException:
        for peer in peers:
            peer.stream.close()
        raise
    start = " and by fast start" if chain.derp_key else ""
    addresses = dict.fromkeys(one.address for one in dialled)
    families = f" over {' and '.join(addresses)}" if len(addresses) > 1 else ""
    return Found(
        Cast((peers[0], peers[1]), peers[2] if len(peers) > 2 else None),
        f"101{start}{families}, server key {seen[0].hex()[:16]}…",
        data={"server_key": seen[0].hex()},
    )


def _private(keys: tuple[Secret, Secret]) -> tuple[bytes, bytes]:
    first, second = (bytes.fromhex(key.reveal()) for key in keys)
    return first, second


async def _greeted(
    target: Target, dialled: Dialled, first: str, client: Client, patience: Patience
) -> ProbeClient:
    """Return a client that has read the server's key. Raises Broken.

    `first`: the address whose certificate was right before.
    """
    fast, address = client.server_key is not None, dialled.address
    connection = await dialled.connection
    try:
        stream, _ = await open_tls(target, connection, address, patience)
    except Broken as broken:
        raise _another_server(target, address, first, broken) from None
    peer = ProbeClient(stream, client)
    try:
        async with asyncio.timeout(patience.derp_s):
            client.start(authority(target.domain, target.https_port, 443))
            await peer.flush()
            while not isinstance(await peer.next(), Greeted):
                pass
            return peer
    except BaseException as error:
        peer.stream.close()
        if isinstance(error, ProtocolError | Flooded | HungUp | OSError):
            # TimeoutError is an OSError
            raise _not_greeted(target, error, peer.head, fast, patience) from None
        raise


def _another_server(target: Target, address: str, first: str, broken: Broken) -> Broken:
    """Return the reason why TLS failed here, after it was right at `first`."""
    if address == first:
        return Broken(
            f"a later connection to {address}: {broken.detail}",
            cause=(
                "the first connection was answered as it should be, this one is not: several servers "
                f"share the address, or another machine on the way answers ({broken.cause})"
            ),
            next=f"find out who answers from another network too, before you deploy again: {target.again}",
        )
    kind, record = ("ipv6", "AAAA") if ":" in address else ("ipv4", "A")
    setting = f"set hosts.{target.name}.{kind} and " if target.of_site else "set "
    return Broken(
        f"{address}: {broken.detail}",
        cause=(
            f"{address} does not answer as {first} does, whose certificate is right: it may be another "
            f"machine's address ({broken.cause})"
        ),
        next=(
            f"{setting}the {record} record of {target.domain} to this host's own address, then "
            f"{target.deploy_all}"
        ),
    )


def _not_greeted(target: Target, error: Exception, head: bytes, fast: bool, patience: Patience) -> Broken:
    """Return the reason why no greeting came; `head` holds the bytes that came instead."""
    repair = target.redeploy(
        Part.FRONT, "pass Upgrade and Connection on to the relay, over HTTP/1.1", unchanged=target.restart()
    )
    if isinstance(error, NotUpgraded):
        return _refused(target, error)
    if (
        fast
        and not isinstance(error, TimeoutError)
        and (head.startswith(b"HTTP/") or isinstance(error, HungUp))
    ):
        return Broken(
            f"the fast start was answered with {excerpt(head) or 'a hang-up'!r}",
            cause=_why_silent(fast),
            next=repair,
        )
    if isinstance(error, ProtocolError):
        return Broken(
            "the answer to the upgrade is no DERP greeting "
            f"({error.reason.replace('_', ' ')}): {excerpt(head)!r}",
            cause="the server behind the front is not a DERP server",
            next=target.redeploy(Part.FRONT, "proxy /derp to the relay", unchanged=target.restart()),
        )
    if isinstance(error, Flooded):
        return Broken(
            "the answer to the upgrade never ends",
            cause="the server behind the front is not a DERP server",
            next=repair,
        )
    if isinstance(error, TimeoutError):
        silent = "no whole answer to the upgrade"
        if fast:
            silent = "the fast start, which the certificate promises, was not answered"
        elif b"\r\n\r\n" in head:
            silent = "101, but no server key behind it"
        return Broken(f"{silent} in {patience.derp_s:g} s", cause=_why_silent(fast), next=repair)
    return Broken(
        f"the connection was closed during the upgrade: {error}",
        cause="the front or the relay hung up: too many connections, or a limit",
        next=target.read_log,
    )


def _why_silent(fast: bool) -> str:
    if fast:
        return (
            "a proxy serves the relay's own extra certificate: clients then do not "
            "wait for a 101, and the proxy does"
        )
    return (
        "the front accepts the request and its backend hangs, or the bytes behind "
        "the answer's blank line are lost"
    )


def _refused(target: Target, refusal: NotUpgraded) -> Broken:
    detail = f"HTTP {refusal.status} instead of 101: {excerpt(refusal.body.encode())}".rstrip(": ")
    if refusal.status == 426:
        return Broken(
            detail,
            cause="the proxy drops the headers Upgrade and Connection on the way to the relay",
            next=target.redeploy(
                Part.FRONT, "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade"
            ),
        )
    if refusal.status in UNREACHED:
        return unreached(target, detail)
    return Broken(
        detail,
        cause="another web server, or another site of it, answers /derp",
        next=target.redeploy(Part.FRONT, "proxy /derp to the relay"),
    )


def _server_key(target: Target, peer: ProbeClient, chain: Chain) -> bytes:
    """Return the key that the relay greeted with.

    Raises Broken if the header or the certificate names another.
    """
    key = peer.client.server_key
    assert key is not None  # noqa: S101 - greeted
    header = _HEADER_KEY.search(peer.head.partition(b"\r\n\r\n")[0])
    restart = target.restart("restart the relay, so that it makes a new certificate")
    if header and bytes.fromhex(header[1].decode()) != key:
        raise Broken(
            "the key in the header Derp-Public-Key is not the one in the greeting",
            cause="two relays answer one request",
            next=target.one_host,
        )
    if chain.derp_key and chain.derp_key != key:
        raise Broken(
            "the fast start's certificate names another key than the greeting",
            cause="the certificate is left over from an older relay key: clients with TLS 1.3 cannot log in",
            next=restart,
        )
    return key
