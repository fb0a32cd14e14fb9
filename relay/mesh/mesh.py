"""Links to the other relays of the region, and to the other workers of this one.

This relay is their client.

A link logs in with the mesh key, watches who is connected there, and carries packets for them
(FORWARD_PACKET). It is one way: the other side has its own link to us. When it breaks, everything
learned from it is forgotten, and it is tried again. A worker's link to its siblings is the same
over a unix socket, with a key and a secret that only they know.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from relay import client as derp
from relay.core.handshake import ClientInfo
from relay.core.outbox import Chunk, Outbox
from relay.core.peer import MeshLink
from relay.core.reasons import Down
from relay.core.wire import ProtocolError
from relay.io.link import CIPHER
from relay.io.stream import Receiver, Stream
from relay.log import Log

if TYPE_CHECKING:
    from relay.core.switch import Switch
    from relay.io.loop import Loop

LINK_RETRY_S: Final = 5.0
SIBLING_RETRY_S: Final = 0.2
CONNECT_S: Final = 10.0
SILENCE_S: Final = 120.0  # a relay sends a keep-alive every minute
WRITE_TIMEOUT_S: Final = 30.0
LINK_HIGH_WATER: Final = 4 * 1024 * 1024  # other relays take their packets, if late
# Room for one round's packets for a sibling, if the system allows so much.
SEND_BUFFER: Final = 1024 * 1024
LOG: Final = Log("mesh")


@dataclass(frozen=True)
class Place:
    """The other end of a link.

    `connect` makes the connection for a protocol; `host` is for the request's header.
    """

    name: str
    host: str
    connect: Callable[[MeshProtocol], Awaitable[None]]
    private_key: bytes
    mesh_key: bytes
    sibling: bool = False


def parse_mesh_with(entry: str) -> tuple[str, int, str]:
    """Return (host, port, address to dial) of one `-mesh-with` entry.

    Those are `host`, `host:port`, and either with `/dialhost` behind it.
    """
    name, _, dial = entry.partition("/")
    host, colon, port = name.rpartition(":")
    if not colon or not port.isdigit():
        host, port = name, "443"
    return host, int(port), dial or host.strip("[]")


def outside(entry: str, private_key: bytes, mesh_key: bytes, tls: ssl.SSLContext) -> Place:
    """Return the place of another relay, over https."""
    host, port, dial = parse_mesh_with(entry)
    loop = asyncio.get_running_loop()

    async def connect(protocol: MeshProtocol) -> None:
        transport, _ = await loop.create_connection(
            lambda: protocol, dial, port, ssl=tls, server_hostname=host.strip("[]")
        )
        transport.set_write_buffer_limits(LINK_HIGH_WATER)

    return Place(entry, host if port == 443 else f"{host}:{port}", connect, private_key, mesh_key)


def sibling(loop: Loop, name: str, path: str, private_key: bytes, secret: bytes) -> Place:
    """Return the place of another worker of this relay, over its unix socket."""

    async def connect(protocol: MeshProtocol) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, path)
        except BaseException:
            sock.close()
            raise
        stream = Stream(loop, sock, high_water=LINK_HIGH_WATER)
        stream.set_receiver(Sibling(stream, protocol))
        protocol.connection_made(stream)

    return Place(name, "worker", connect, private_key, secret, sibling=True)


async def keep(loop: Loop, switch: Switch, public_key: bytes, place: Place) -> None:
    """Hold the link to one place up, until cancelled.

    Ends when the place turns out to be this relay itself.
    """
    while True:
        ended = loop.create_future()
        protocol = MeshProtocol(loop, switch, public_key, place, ended)
        try:
            await asyncio.wait_for(place.connect(protocol), CONNECT_S)
            reason = await ended
        except (OSError, asyncio.TimeoutError) as error:
            reason = f"{type(error).__name__}: {error}"
        if reason == Down.MYSELF:
            LOG.info("this mesh entry is the relay itself", relay=place.name)
            return
        LOG.warning("mesh link down", relay=place.name, reason=reason)
        await asyncio.sleep(SIBLING_RETRY_S if place.sibling else LINK_RETRY_S)


async def meet(loop: Loop, switch: Switch, siblings: int, within_s: float) -> None:
    """Wait until so many other workers and their clients are known here, and they know this one.

    Or until the time is over: one of them may have died.
    """
    deadline = loop.time() + within_s
    while loop.time() < deadline:
        if switch.met == len(switch.siblings) == siblings:
            break
        await asyncio.sleep(0.01)


class MeshProtocol(asyncio.Protocol):
    """One connection to another relay. `ended` gets the reason when it is over."""

    def __init__(
        self, loop: Loop, switch: Switch, public_key: bytes, place: Place, ended: asyncio.Future[str]
    ) -> None:
        self._loop = loop
        self._switch = switch
        self._public_key = public_key
        self._place = place
        self._ended = ended
        self._client = derp.Client(place.private_key, ClientInfo(mesh_key=place.mesh_key))
        self._transport: asyncio.Transport | Stream
        self._link: MeshLink | None = None
        self._reason: str = Down.CLOSED
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # Called by the loop.

    def connection_made(self, transport: asyncio.BaseTransport | Stream) -> None:
        self._transport = cast("asyncio.Transport | Stream", transport)
        self._client.start(self._place.host)
        self._transport.write(self._client.outgoing())
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(CONNECT_S, self._check_login)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for event in self._client.receive(data):
                self._handle(event)
        except ProtocolError as error:
            self.end(str(error))
            return
        if out := self._client.outgoing():
            self._transport.write(out)

    def pause_writing(self) -> None:
        if self._link is not None:
            self._link.block()
        self._write_timer = self._loop.call_later(WRITE_TIMEOUT_S, self.end, Down.WRITE_TIMEOUT)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        if self._link is not None:
            self._link.outbox.unblock()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self._link is not None:
            self._switch.remove_link(self._link)
        if not self._ended.done():
            self._ended.set_result(str(exc) if exc else self._reason)

    # Called by the relay.

    def write(self, chunk: Chunk) -> None:
        """Write whole frames from the outbox of this link."""
        self._transport.write(chunk)

    def end(self, reason: str) -> None:
        """Break the link, and try again later.

        `reason` is a `Down`, or an error's text, for the log.
        """
        self._reason = reason
        self._transport.abort()

    def _handle(self, event: derp.Event) -> None:
        switch = self._switch
        if (
            isinstance(event, derp.Greeted)
            and event.server_key == self._public_key
            and not self._place.sibling
        ):
            self.end(Down.MYSELF)
        elif isinstance(event, derp.Admitted):
            self._client.watch()
            outbox = Outbox(switch.dirty, switch.drop, self, mesh=True)
            self._link = MeshLink(self._place.name, outbox, sibling=self._place.sibling)
            switch.add_link(self._link)
            LOG.info("mesh link up", relay=self._place.name)
            self._check_silence()
        elif isinstance(event, derp.Pinged):
            self._client.pong(event.data)
            if self._link is not None:
                self._link.met = True
        elif self._link is not None:
            news = derp.PeerState if self._place.sibling else derp.Present
            if isinstance(event, news) and event.peer.key != self._client.public_key:
                switch.announce(self._link, event.peer)
            elif isinstance(event, derp.Gone):
                switch.withdraw(self._link, event.key)

    def _check_login(self) -> None:
        if self._link is None:
            self.end(Down.NOT_ADMITTED)

    def _check_silence(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        silent_s = self._loop.time() - self._heard_at
        if silent_s > SILENCE_S:
            self.end(Down.SILENT)
        else:
            self._timer = self._loop.call_later(SILENCE_S - silent_s + 1, self._check_silence)


class Sibling(Receiver):
    """The receiver of a stream to another worker, in front of the protocol.

    With asyncio's own transport links carried 7 % less.
    """

    __slots__ = ("_protocol", "_stream")
    buffer = CIPHER

    def __init__(self, stream: Stream, protocol: MeshProtocol) -> None:
        self._stream = stream
        self._protocol = protocol

    def buffer_updated(self, nbytes: int) -> None:
        self._protocol.data_received(bytes(CIPHER[:nbytes]))

    def eof_received(self) -> None:
        self._stream.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
