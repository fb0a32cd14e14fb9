"""The delaying proxy: it delays each direction, counts correctly, and loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from lab.delay import DelayProxy, ProxyCounts, parse_address, parse_seconds
from lab.delaying import delaying

RTT_S = 0.04


@asynccontextmanager
async def echo(
    *, greeting: bytes = b"", silent: bool = False, bye: bool = False
) -> AsyncIterator[tuple[str, int]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        try:
            while data := await reader.read(65536):
                if not silent:
                    writer.write(data)
                    await writer.drain()
                if bye:
                    break
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()


def test_each_question_and_answer_is_a_turn_and_costs_a_round_trip() -> None:
    async def talk() -> tuple[float, ProxyCounts]:
        async with echo() as far, DelayProxy(far, rtt_s=RTT_S) as proxy:
            start = time.monotonic()
            reader, writer = await asyncio.open_connection(*proxy.address)
            for _ in range(3):
                writer.write(b"question")
                await reader.readexactly(8)
            took = time.monotonic() - start
            writer.close()
            return took, proxy.counts

    took, counts = asyncio.run(talk())
    assert (counts.connections, counts.turns, counts.bytes_up, counts.bytes_down) == (1, 1 + 3, 24, 24)
    assert took >= 4 * RTT_S


def test_chunks_that_wait_for_nothing_are_one_turn() -> None:
    async def talk() -> ProxyCounts:
        async with echo() as far, DelayProxy(far, rtt_s=RTT_S) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            await asyncio.sleep(1.5 * RTT_S)  # the handshake is over
            for _ in range(5):
                writer.write(b"x")
                await asyncio.sleep(RTT_S / 20)
            await reader.readexactly(5)
            writer.close()
            return proxy.counts

    counts = asyncio.run(talk())
    assert counts.chunks_up > 1
    assert counts.turns == 2


def test_a_far_end_that_speaks_first_and_a_last_message_are_no_turns() -> None:
    async def talk() -> ProxyCounts:
        async with echo(greeting=b"hello", silent=True) as far, DelayProxy(far, rtt_s=RTT_S) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            assert await reader.readexactly(5) == b"hello"
            writer.write(b"bye")
            writer.close()
            await asyncio.sleep(RTT_S)
            return proxy.counts

    assert asyncio.run(talk()).turns == 1


def test_a_stream_comes_through_whole_and_ends() -> None:
    sent = random.Random(1).randbytes(20_000_000)  # more than is held in flight

    async def talk() -> bytes:
        async with echo() as far, DelayProxy(far, rtt_s=RTT_S) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)

            async def send() -> None:
                writer.write(sent)
                await writer.drain()
                writer.write_eof()

            _, got = await asyncio.gather(send(), reader.read(-1))
            writer.close()
            return got

    assert asyncio.run(talk()) == sent


def test_the_far_ends_close_is_passed_on() -> None:
    async def talk() -> bytes:
        async with echo(bye=True) as far, DelayProxy(far, rtt_s=RTT_S) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            writer.write(b"once")
            got = await reader.read(-1)
            writer.close()
            return got

    assert asyncio.run(talk()) == b"once"


def test_a_refused_connection_is_passed_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unused = closed.getsockname()

    async def talk() -> None:
        async with DelayProxy(unused, rtt_s=RTT_S) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            with suppress(ConnectionError):
                assert await reader.read(-1) == b""
            writer.close()

    asyncio.run(talk())


def test_cut_breaks_and_freeze_stalls() -> None:
    async def talk() -> None:
        async with echo() as far, DelayProxy(far, rtt_s=RTT_S) as proxy:
            reader, writer = await asyncio.open_connection(*proxy.address)
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
            proxy.freeze()
            writer.write(b"b")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 5 * RTT_S)
            proxy.thaw()
            assert await reader.readexactly(1) == b"b"
            writer.write(b"c")
            proxy.cut()
            with suppress(ConnectionError):
                assert await reader.read(1) == b""
            writer.close()

    asyncio.run(talk())


def test_datagrams_go_both_ways_per_caller() -> None:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            # A datagram transport.
            self.transport.sendto(data + str(addr[1]).encode(), addr)  # type: ignore[attr-defined]

    def ask(address: tuple[str, int]) -> tuple[list[bytes], float]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as caller:
            caller.settimeout(5)
            start = time.monotonic()
            got = []
            for _ in range(2):
                caller.sendto(b"hi", address)
                got.append(caller.recv(100))
            return got, time.monotonic() - start

    async def talk() -> None:
        far, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        async with DelayProxy(far.get_extra_info("sockname"), rtt_s=RTT_S, udp=True) as proxy:
            (one, took), (two, _) = await asyncio.gather(
                asyncio.to_thread(ask, proxy.address), asyncio.to_thread(ask, proxy.address)
            )
            assert one[0] == one[1] != two[0] == two[1]
            assert took >= 2 * RTT_S
            assert (proxy.counts.connections, proxy.counts.turns, proxy.counts.bytes_up) == (2, 4, 8)
        far.close()
        await asyncio.sleep(0)

    asyncio.run(talk())


def test_blocking_callers_have_a_thread() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        delaying(server.getsockname(), rtt_s=RTT_S) as proxy,
    ):
        with socket.create_connection(proxy.address) as caller:
            far, _ = server.accept()
            with far:
                caller.sendall(b"ping")
                assert far.recv(4) == b"ping"
                far.sendall(b"pong")
                assert caller.recv(4) == b"pong"
        counts = proxy.counts(reset=True)
        assert 2 * RTT_S <= counts.wire_s < 2
        assert replace(counts, wire_s=0) == ProxyCounts(
            connections=1, turns=2, bytes_up=4, bytes_down=4, chunks_up=1, chunks_down=1
        )
        assert proxy.counts() == ProxyCounts()


def test_the_program_prints_its_counts_as_json() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = [
            sys.executable, "-m", "lab.delay", "--to", f"127.0.0.1:{server.getsockname()[1]}", "--rtt",
            "20ms",
        ]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout
            first = json.loads(program.stdout.readline())
            assert first["rtt_ms"] == 20
            with socket.create_connection(parse_address(first["listening"])) as caller:
                caller.sendall(b"hello")
                far, _ = server.accept()
                with far:
                    assert far.recv(5) == b"hello"
                os.kill(program.pid, signal.SIGUSR1)
                assert json.loads(program.stdout.readline())["bytes_up"] == 5
            program.terminate()
            assert json.loads(program.stdout.readline())["connections"] == 1
            assert program.wait(5) == 0


def test_times_and_addresses_are_read_as_people_write_them() -> None:
    assert [parse_seconds(text) for text in ("100ms", "1.5s", "0.1")] == [0.1, 1.5, 0.1]
    assert [parse_address(text) for text in ("127.0.0.1:22", "[::1]:443")] == [
        ("127.0.0.1", 22),
        ("::1", 443),
    ]
    for wrong in ("22", "host:", "host:ssh"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_address(wrong)
    with pytest.raises(ValueError, match="100ms"):
        parse_seconds("soon")
