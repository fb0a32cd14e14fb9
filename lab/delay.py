"""A delaying proxy, TCP and UDP: distance between two ends on one machine.

Each direction is held for half the round trip. A TCP connection first pays for its own handshake,
as on a real path: the caller's first byte leaves one round trip after it connected, and arrives
half a round trip later. Order is kept and nothing is lost. Bandwidth is loopback's, so figures show
the cost of waiting, not that of a slow line.

The counts are taken at the caller's end of the path:

- A **turn** is a round trip that the caller had to wait for. Each burst of the caller has a height:
  one more than the highest message that the caller had received before it sent. A message of the
  far end is as high as the highest burst that has reached it. The turns are the height that the
  caller has received, plus one for a TCP handshake. So further chunks, acknowledgements without a
  waiting end and a last message do not count, and a connection never has more turns than it lasted
  round trips. They are summed over the proxy's connections. An end that pauses for longer than a
  round trip may cost a turn more: let the round trip be longer than the pauses of a busy machine.
- Bytes and chunks, each way.

As a library: `DelayProxy` inside an event loop; `lab.delaying` for blocking code. As a program:
`python -m lab.delay --listen 127.0.0.1:PORT --to HOST:PORT --rtt 100ms [--udp]` prints one JSON
line when it listens, one on each SIGUSR1, and one with the final counts when it ends (SIGINT,
SIGTERM).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from typing import Any

Address = tuple[str, int]
_Entered = Callable[[int], int]  # size -> height
_Left = Callable[[int, int], None]  # height, size

CHUNK = 1 << 16
IN_FLIGHT = 8 << 20  # bytes held per direction before the sender has to wait: a generous TCP window


@dataclass
class ProxyCounts:
    """The traffic on the wire. `up` is away from the caller, `down` towards it.

    For UDP, `connections` are caller addresses. `wire_s` is the time from the first connection to
    the last byte that left the caller or reached it.
    """

    wire_s: float = 0.0
    connections: int = 0
    turns: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    chunks_up: int = 0
    chunks_down: int = 0


class _Chain:
    """The chain of round trips of one conversation: the heights that its two ends have received."""

    def __init__(self, proxy: DelayProxy) -> None:
        self.proxy = proxy
        self.height = self.far_height = 0  # of the highest message that this end has received
        proxy.now.connections += 1

    def caller_sends(self, size: int) -> int:
        """Count a burst of the caller; return its height."""
        counts = self.proxy.now
        counts.bytes_up += size
        counts.chunks_up += 1
        return self.height + 1

    def far_end_receives(self, height: int, _: int) -> None:
        """Note that a burst of the caller has reached the far end."""
        self.far_height = max(self.far_height, height)

    def far_end_sends(self, _: int) -> int:
        """Return the height of a message of the far end; 0 when it sends first."""
        return self.far_height

    def caller_receives(self, height: int, size: int) -> None:
        """Count a message that has reached the caller, and the turns that it ends."""
        counts = self.proxy.now
        if height > self.height:
            counts.turns += height - self.height
            self.height = height
        counts.bytes_down += size
        counts.chunks_down += 1


class DelayProxy:
    """A proxy to one address.

    `async with DelayProxy(("127.0.0.1", 22), rtt_s=0.1) as proxy: connect to proxy.address`.

    `udp` makes it one for datagrams. `cut()` breaks every connection at once, like a line that
    fails. `freeze()` lets nothing through and closes nothing, until `thaw()`.
    """

    def __init__(
        self, to: Address, *, rtt_s: float, listen: Address = ("127.0.0.1", 0), udp: bool = False
    ) -> None:
        self.to = to
        self.rtt_s = rtt_s
        self.listen = listen
        self.udp = udp
        self._counts = ProxyCounts()
        self._began: float | None = None
        self.address: Address = listen
        self._server: asyncio.Server | None = None
        self._front: asyncio.DatagramTransport | None = None
        self._open: set[asyncio.WriteTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> DelayProxy:
        if self.udp:
            loop = asyncio.get_running_loop()
            self._front, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=self.listen
            )
            self.address = self._front.get_extra_info("sockname")[:2]
        else:
            self._server = await asyncio.start_server(self._accept, *self.listen)
            self.address = self._server.sockets[0].getsockname()[:2]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        if self._front:
            self._front.close()
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def counts(self) -> ProxyCounts:
        """The traffic since the last `reset`."""
        return replace(self._counts)

    def reset(self) -> None:
        """Start all counts at zero again."""
        self._counts, self._began = ProxyCounts(), None

    @property
    def now(self) -> ProxyCounts:
        """The running counts, to add an event of this moment to."""
        clock = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = clock
        self._counts.wire_s = clock - self._began
        return self._counts

    def cut(self) -> None:
        """Break every open connection now; bytes on the way are lost.

        New connections are accepted.
        """
        for transport in list(self._open):
            transport.abort()

    def freeze(self) -> None:
        """Let nothing through and close nothing, like a path that loses every packet."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - start_server runs each connection as a task
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except asyncio.CancelledError:
            pass  # by __aexit__; asyncio's streams would print it
        finally:
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer.transport)
        chain = _Chain(self)
        self.now.turns += 1  # SYN, SYN+ACK
        far_writer = None
        try:
            await asyncio.sleep(self.rtt_s)
            arrival = asyncio.get_running_loop().time() + self.rtt_s / 2
            up = _Held(reader, self, chain.caller_sends, chain.far_end_receives)
            async with asyncio.TaskGroup() as group:
                group.create_task(up.fill())
                await asyncio.sleep(arrival - asyncio.get_running_loop().time())
                far_reader, far_writer = await asyncio.open_connection(*self.to)
                self._open.add(far_writer.transport)
                down = _Held(far_reader, self, chain.far_end_sends, chain.caller_receives)
                group.create_task(up.drain(far_writer))
                group.create_task(down.fill())
                group.create_task(down.drain(writer))
        except* OSError:
            writer.transport.abort()  # one end broke: break the other
            if far_writer:
                far_writer.transport.abort()
        finally:
            for end in filter(None, (writer, far_writer)):
                end.close()
                self._open.discard(end.transport)

    async def _hold(self, deadline: float) -> None:
        await asyncio.sleep(max(0.0, deadline - asyncio.get_running_loop().time()))
        await self._flowing.wait()


class _Held:
    """One direction of one connection: the bytes that were read wait here until they are due."""

    def __init__(
        self, source: asyncio.StreamReader, proxy: DelayProxy, entered: _Entered, left: _Left
    ) -> None:
        self.source, self.proxy, self.entered, self.left = source, proxy, entered, left
        self.line: deque[tuple[float, int, bytes]] = deque()
        self.held = 0
        self.moved = asyncio.Condition()

    async def fill(self) -> None:
        clock = asyncio.get_running_loop().time
        data = b"-"
        while data:
            async with self.moved:
                await self.moved.wait_for(lambda: self.held < IN_FLIGHT)
            data = await self.source.read(CHUNK)
            height = self.entered(len(data)) if data else 0
            async with self.moved:
                self.line.append((clock() + self.proxy.rtt_s / 2, height, data))
                self.held += len(data)
                self.moved.notify_all()

    async def drain(self, sink: asyncio.StreamWriter) -> None:
        data = b"-"
        while data:
            async with self.moved:
                await self.moved.wait_for(lambda: bool(self.line))
                due, height, data = self.line.popleft()
            await self.proxy._hold(due)
            if data:
                self.left(height, len(data))
                sink.write(data)
                await sink.drain()
            elif sink.can_write_eof():
                sink.write_eof()
            async with self.moved:
                self.held -= len(data)
                self.moved.notify_all()


class _Datagrams(asyncio.DatagramProtocol):
    """The side that callers send to.

    Each caller gets its own socket towards the far end, which tells callers apart by it.
    """

    def __init__(self, proxy: DelayProxy) -> None:
        self.proxy = proxy
        self.front: asyncio.DatagramTransport | None = None
        self.callers: dict[Address, tuple[_Chain, asyncio.Future[asyncio.DatagramTransport]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.front = transport  # type: ignore[assignment]  # always a datagram transport

    def connection_lost(self, exc: Exception | None) -> None:
        for _, opening in self.callers.values():
            if opening.done() and not opening.cancelled() and not opening.exception():
                opening.result().close()

    def datagram_received(self, data: bytes, caller: Address) -> None:
        if caller not in self.callers:
            self.callers[caller] = (_Chain(self.proxy), asyncio.ensure_future(self._open(caller)))
        chain, opening = self.callers[caller]
        self._later(self._send(data, chain, chain.caller_sends(len(data)), opening))

    async def _open(self, caller: Address) -> asyncio.DatagramTransport:
        far, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Far(self, caller), remote_addr=self.proxy.to
        )
        return far

    async def _send(
        self, data: bytes, chain: _Chain, height: int, opening: asyncio.Future[asyncio.DatagramTransport]
    ) -> None:
        await self.proxy._hold(asyncio.get_running_loop().time() + self.proxy.rtt_s / 2)
        chain.far_end_receives(height, len(data))
        (await opening).sendto(data)

    async def _answer(self, data: bytes, caller: Address) -> None:
        chain = self.callers[caller][0]
        height = chain.far_end_sends(len(data))
        await self.proxy._hold(asyncio.get_running_loop().time() + self.proxy.rtt_s / 2)
        if self.front and not self.front.is_closing():
            chain.caller_receives(height, len(data))
            self.front.sendto(data, caller)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.proxy._tasks.add(task)
        task.add_done_callback(self.proxy._tasks.discard)


class _Far(asyncio.DatagramProtocol):
    def __init__(self, near: _Datagrams, caller: Address) -> None:
        self.near, self.caller = near, caller

    def datagram_received(self, data: bytes, _: Address) -> None:
        self.near._later(self.near._answer(data, self.caller))

    def error_received(self, exc: Exception) -> None:
        """Report nothing to the caller when no program listens there, as a real path does."""


def parse_address(text: str) -> Address:
    """Read `127.0.0.1:22`, `[::1]:22` or `name:22` as a pair. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def parse_seconds(text: str) -> float:
    """Read `100ms`, `1.5s` or `0.1` (seconds) as seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|)", text)
    if not match:
        raise ValueError(f"{text!r} is not a time such as 100ms")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


async def _serve(arguments: argparse.Namespace) -> None:
    def report(**more: object) -> None:
        print(json.dumps({**more, "rtt_ms": proxy.rtt_s * 1000, **asdict(proxy.counts)}), flush=True)

    async with DelayProxy(
        arguments.to, rtt_s=arguments.rtt, listen=arguments.listen, udp=arguments.udp
    ) as proxy:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        loop.add_signal_handler(signal.SIGUSR1, report)
        report(listening=f"{proxy.address[0]}:{proxy.address[1]}")
        await ended.wait()
    report()


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.delay", description="delay TCP (or UDP) by a round trip and count the turns"
    )
    parser.add_argument("--listen", type=parse_address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--to", type=parse_address, required=True, metavar="HOST:PORT")
    parser.add_argument(
        "--rtt", type=parse_seconds, default=0.1, metavar="TIME", help="100ms, 0.1s; default 100ms"
    )
    parser.add_argument("--udp", action="store_true", help="datagrams instead of connections")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
