"""Sockets of the proof, bounded in time and size: the peer may be any program at that address, and
is not trusted.

Nothing here knows the meaning of a rung; the rungs say what a failure is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from probe.proof import Broken


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds that a step may take.

    Real clients give a whole connect 10 s (derphttp_client.go:connect), the server gives the
    handshake 10 s. `leave_s`: how long our clients wait until the relay has closed their
    connections as well, so that it no longer counts them; 0: they do not wait.
    """

    name_s: float = 5.0
    tcp_s: float = 5.0
    stun_s: float = 2.0
    tls_s: float = 8.0
    http_s: float = 5.0
    derp_s: float = 10.0
    packets_s: float = 10.0
    idle_s: float = 70.0
    leave_s: float = 0.0


MAX_READ = 16 * 1024
BUDGET = 4 * 1024 * 1024
"""Bytes that one connection may make us read: several times what the packets' rung needs."""


class NoRoute(Exception):
    """This controller itself has no way out in that address family."""


class Flooded(Exception):
    """The peer sent more than the budget."""


def family(address: str) -> socket.AddressFamily:
    """Return AF_INET or AF_INET6 for a literal address."""
    return socket.AF_INET6 if isinstance(ip_address(address), IPv6Address) else socket.AF_INET


async def resolve(name: str) -> Sequence[str]:
    """Return the addresses of `name`, both families, in the system resolver's order.

    Raises OSError.

    It runs in its own daemon thread: with the loop's executor a resolver that hangs would delay the
    end of the program.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: OSError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(addresses)
        else:
            done.set_exception(error)

    def look_up() -> None:
        addresses: list[str] = []
        error = None
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except OSError as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, addresses, error)

    threading.Thread(target=look_up, name=f"resolve {name}", daemon=True).start()
    return await done


async def connect(address: str, port: int) -> socket.socket:
    """Return a connected TCP socket. Raises OSError, or NoRoute when the fault is on this side."""
    try:
        connection = socket.socket(family(address), socket.SOCK_STREAM)
    except OSError:  # a kernel without IPv6
        raise NoRoute(f"this controller has no route to {address}") from None
    connection.setblocking(False)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError) and error.errno in {
            errno.ENETUNREACH,
            errno.EADDRNOTAVAIL,
            errno.EAFNOSUPPORT,
        }:
            raise NoRoute(f"this controller has no route to {address}") from None
        raise
    return connection


class BoundedStream:
    """A byte stream that reads at most `BUDGET` bytes in its life."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = BUDGET

    @classmethod
    async def over(
        cls,
        connection: socket.socket,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        patience_s: float = 8.0,
    ) -> BoundedStream:
        """Open the stream on a connected socket, with TLS if a context is given. Owns the socket.

        An empty server name sends no SNI. Raises ssl.SSLError, OSError (ConnectionError among
        them).
        """
        try:
            if tls is None:
                reader, writer = await asyncio.open_connection(sock=connection)
            else:
                reader, writer = await asyncio.open_connection(
                    sock=connection,
                    ssl=tls,
                    server_hostname=server_name,
                    ssl_handshake_timeout=patience_s,
                    ssl_shutdown_timeout=1.0,
                )
        except BaseException:
            connection.close()
            raise
        return cls(reader, writer)

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, for its certificates."""
        found: ssl.SSLObject | None = self._writer.get_extra_info("ssl_object")
        return found

    async def read(self) -> bytes:
        """Read some bytes; b"" at the end of the stream. Raises OSError, Flooded."""
        chunk = await self._reader.read(MAX_READ)
        self._left -= len(chunk)
        if self._left < 0:
            raise Flooded(f"the peer sent more than {BUDGET >> 20} MiB")
        return chunk

    def leave_out(self, count: int) -> None:
        """Do not count so many of the bytes that were read: they were for others."""
        self._left += count

    async def send(self, data: bytes) -> None:
        """Write, and wait until the transport takes more. Raises OSError."""
        self._writer.write(data)
        await self._writer.drain()

    async def end(self, patience_s: float) -> None:
        """Close the stream, and wait until the peer has done so, too, but not longer than that."""
        self._writer.close()
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(patience_s):
                await self._writer.wait_closed()

    def close(self) -> None:
        """Abort without TLS or WebSocket close frames; no peer depends on them."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def within(
    seconds: float, late: Broken, failed: Callable[[OSError], Broken] | None = None
) -> AsyncIterator[None]:
    """Raise `late` when the body takes longer than `seconds`; turn its OSError into `failed`'s
    answer.

    Without `failed` an OSError is raised as it is.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise late from None
    except OSError as error:
        if failed is None:
            raise
        raise failed(error) from None
