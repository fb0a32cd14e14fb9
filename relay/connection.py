"""A DERP client over asyncio: connect, log in, send and receive."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from types import TracebackType

from relay.client import Admitted, Client, Event, Ponged, Received, find_meta_key
from relay.core.handshake import ClientInfo


class Connection:
    """A `Client` on an asyncio stream. Use as `async with await Connection.open(...) as derp:`.

    Not for several readers at once. Every method that waits raises OSError when the transport
    fails, and EOFError when the server hangs up (a refusal by admission looks like that: there is
    no reason on the wire).
    """

    def __init__(self, client: Client, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = client
        self._reader = reader
        self._writer = writer
        self._events: deque[Event] = deque()

    @classmethod
    async def open(
        cls,
        address: str,
        port: int,
        private_key: bytes,
        info: ClientInfo | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        fast_start: bool = False,
        path: str = "/derp",
    ) -> Connection:
        """Connect, upgrade and log in. Returns when the server has admitted this client.

        `server_name` (default: `address`) is the name for TLS and the Host header. `fast_start` is
        used when TLS 1.3 brought a meta certificate, as Tailscale's own clients do. It has no time
        limit: wrap it in asyncio.wait_for.
        """
        host = server_name or address
        reader, writer = await asyncio.open_connection(
            address, port, ssl=tls, server_hostname=host if tls is not None else None, limit=256 * 1024
        )
        try:
            key = meta_key(writer.get_extra_info("ssl_object")) if fast_start else None
            client = Client(private_key, info, server_key=key)
            connection = cls(client, reader, writer)
            client.start(host if port == 443 else f"{host}:{port}", path)
            await connection.flush()
            while not isinstance(await connection.receive(), Admitted):
                pass
        except BaseException:
            writer.transport.abort()
            raise
        return connection

    async def receive(self) -> Event:
        """Return the next event."""
        while not self._events:
            data = await self._reader.read(256 * 1024)
            self._events.extend(self.client.receive(data))
            await self.flush()
            if not data and not self._events:
                raise EOFError("the relay closed the connection")
        return self._events.popleft()

    async def receive_packet(self) -> Received:
        """Return the next packet. Other events on the way are dropped."""
        while True:
            event = await self.receive()
            if isinstance(event, Received):
                return event

    async def send(self, destination: bytes, packet: bytes) -> None:
        """Send a packet of at most 65,536 bytes."""
        self.client.send(destination, packet)
        await self.flush()

    async def ping(self, data: bytes) -> None:
        """Send 8 bytes and wait until they come back.

        Packets that come before the pong stay to be received.
        """
        self.client.ping(data)
        await self.flush()
        before: list[Event] = []
        while (event := await self.receive()) != Ponged(data):
            before.append(event)
        self._events.extendleft(reversed(before))

    async def flush(self) -> None:
        """Write the bytes that the client has queued."""
        if data := self.client.outgoing():
            self._writer.write(data)
            await self._writer.drain()

    def close(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def meta_key(tls: ssl.SSLObject | None) -> bytes | None:
    """Return the relay's key from the chain of a TLS 1.3 session.

    Return None for TLS 1.2, or without a meta certificate. Python has a public way to the presented
    chain since 3.13; before that the inner object has the same method.
    """
    if tls is None or tls.version() != "TLSv1.3":
        return None
    inner = tls if hasattr(tls, "get_unverified_chain") else getattr(tls, "_sslobj", None)
    chain = inner.get_unverified_chain() if inner is not None else None
    return find_meta_key(item if isinstance(item, bytes) else item.public_bytes(2) for item in chain or ())
