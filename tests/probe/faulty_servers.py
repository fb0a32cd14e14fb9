"""Servers that misbehave on purpose, scripted on real sockets.

They complement the real ones, for faults that no real server has.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

from relay.core import wire
from relay.core.handshake import (
    Introduction,
    ServerInfo,
    make_private_key,
    pack_server_info,
    parse_client_info,
    public_key,
)
from relay.core.stun import pack_response
from tests.probe.authority import Issued
from tests.probe.servers import LOOPBACK
from tests.relay.packing import pack_recv_packet

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(
    script: Script, issued: Issued | None = None, at: tuple[str, int] = (LOOPBACK, 0)
) -> AsyncIterator[int]:
    """Yield the port of a server that runs `script` for each connection, under TLS if there is a
    certificate."""
    tasks: set[asyncio.Task[None]] = set()
    tls = None
    if issued is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(issued.chain, issued.key)

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError, wire.ProtocolError, asyncio.LimitOverrunError):
                await script(reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(run, *at, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def saying(words: bytes, *, then: float = 0) -> Script:
    """Return a script that reads a little, sends `words`, and hangs up after `then` seconds."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(words)
        await writer.drain()
        await asyncio.sleep(then)

    return script


def trickling(first: bytes = b"", drop: bytes = b"x") -> Script:
    """Return a script that sends `first`, then `drop` after `drop` until stopped."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(first)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    return script


def reset(writer: asyncio.StreamWriter) -> None:
    """Send a TCP reset instead of an orderly close."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def filtering(name: str, onwards: int) -> Script:
    """Return a filter on the way: it resets a hello that names `name` and passes all others on to
    the port `onwards`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.read(4096)
        if name.encode() in hello:
            reset(writer)
            return
        await _passed_on(hello, reader, writer, onwards)

    return script


async def _passed_on(
    hello: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, onwards: int
) -> None:
    far_reader, far_writer = await asyncio.open_connection(LOOPBACK, onwards)
    far_writer.write(hello)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(4096):
            sink.write(data)
            await sink.drain()

    try:
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    finally:
        far_writer.transport.abort()


def in_the_middle(onwards: int, then: int) -> Script:
    """Return somebody on the way: the first connection goes to the port `onwards`, the others to
    his own port `then`."""
    ports = iter([onwards])

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _passed_on(b"", reader, writer, next(ports, then))

    return script


def together(count: int, onwards: int) -> Script:
    """Return a server that passes connections on to the port `onwards`, once `count` are there."""
    there = asyncio.Barrier(count)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.wait()
        await _passed_on(b"", reader, writer, onwards)

    return script


PROBE_ANSWER = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"


@dataclass
class FaultyRelay:
    """A server that looks like a relay up to a point.

    Each field is a step that a test may do wrongly.
    """

    key: bytes = b""
    header_key: bytes = b""  # named in the answer's header; empty: none
    fresh_key: bool = False  # another server key for each connection
    upgrade: Script | None = None  # instead of the answer to the upgrade
    after_info: Callable[[Introduction], bytes] | None = None  # instead of ServerInfo
    # a packet as it is delivered; None: dropped
    deliver: Callable[[bytes], bytes | None] | None = None
    most: int = wire.MAX_PACKET  # packets above it vanish
    foreign: bytes = b""  # a packet of another proof, which comes before each packet
    pings: bool = False  # pings its clients with every packet
    alive_s: float = 0  # sends one keep-alive after so long
    loses: bool = False  # reports that the receiver is not there

    def __post_init__(self) -> None:
        self.key = self.key or make_private_key()
        self.pongs = 0
        self.introduced: list[Introduction] = []
        self._clients: dict[bytes, asyncio.StreamWriter] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/derp/probe" in request:
            writer.write(PROBE_ANSWER)
            await reader.read(1)
            return
        if self.upgrade is not None:
            # It reads what was read already.
            await self.upgrade(_Replayed(request), writer)  # type: ignore[arg-type]
            return
        private = make_private_key() if self.fresh_key else self.key
        named = b"Derp-Public-Key: " + self.header_key.hex().encode() + b"\r\n" if self.header_key else b""
        writer.write(SWITCH + named + b"\r\n" + wire.pack_server_key(public_key(private)))
        who = parse_client_info((await _frame(reader))[1], private)
        self.introduced.append(who)
        if self.after_info is not None:
            writer.write(self.after_info(who))
            await asyncio.sleep(60)
            return
        self._clients[who.key] = writer
        writer.write(pack_server_info(who.shared, ServerInfo()))
        if self.alive_s:
            asyncio.get_running_loop().call_later(self.alive_s, writer.write, wire.KEEP_ALIVE_FRAME)
        while True:
            kind, payload = await _frame(reader)
            if kind == wire.SEND_PACKET and self.loses:
                writer.write(wire.pack_peer_gone(payload[: wire.KEY_LEN], wire.GONE_NOT_HERE))
                continue
            if kind == wire.SEND_PACKET and self.pings:
                writer.write(wire.pack_ping(b"are you?"))
            self.pongs += kind == wire.PONG and payload == b"are you?"
            packet = payload[wire.KEY_LEN :]
            if kind == wire.SEND_PACKET and len(packet) <= self.most:
                delivered = self.deliver(packet) if self.deliver else packet
                receiver = self._clients.get(payload[: wire.KEY_LEN])
                if self.foreign and receiver is not None:
                    receiver.write(pack_recv_packet(who.key, self.foreign))
                if delivered is not None and receiver is not None:
                    receiver.write(pack_recv_packet(who.key, delivered))


class _Replayed:
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def read(self, _: int) -> bytes:
        return self._data


async def _frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind, length = wire.HEADER.unpack(await reader.readexactly(wire.HEADER_LEN))
    return kind, await reader.readexactly(length)


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes, tuple[str, int]], bytes | None]) -> AsyncIterator[int]:
    """Yield the port of a UDP server; `answer` gets the datagram and its sender."""

    class Protocol(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if (reply := answer(data, addr)) is not None:
                self.transport.sendto(reply, addr)  # type: ignore[attr-defined]  # a datagram transport

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, (LOOPBACK, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
        await asyncio.sleep(0)


def stun_saying(address: str) -> Callable[[bytes, tuple[str, int]], bytes]:
    """Return the answers of a STUN server that reports the same address to every client."""
    return lambda request, sender: pack_response(request[8:20], socket.inet_aton(address), sender[1])


@contextlib.contextmanager
def backlog_full() -> Iterator[int]:
    """Yield a port whose SYNs are dropped, as by a packet filter: its backlog is full and no
    program accepts."""
    with socket.socket() as listener, contextlib.ExitStack() as fillers:
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(2):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
