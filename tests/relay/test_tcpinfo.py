import asyncio
import socket
import time

import uvloop

from relay.tcpinfo import read_rtt_us


def test_a_connection_of_loopback_is_fast():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as a, server.accept()[0] as b:
        for _ in range(5):
            a.sendall(b"x")
            b.recv(1)
            b.sendall(b"y")
            a.recv(1)
        assert 0 < read_rtt_us(a) < 200_000
    assert read_rtt_us(a) == -1, "closed"


def test_what_is_no_tcp_connection():
    a, b = socket.socketpair()
    with a, b:
        assert read_rtt_us(a) == -1
    assert read_rtt_us(None) == -1


def test_uvloops_transports_tell():
    async def run():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        sock = writer.get_extra_info("socket")
        rtt, began = read_rtt_us(sock), time.perf_counter()
        for _ in range(1000):
            read_rtt_us(sock)
        print(f"{(time.perf_counter() - began) * 1000:.1f} µs each")
        writer.close()
        server.close()
        return rtt

    loop = uvloop.new_event_loop()
    try:
        assert loop.run_until_complete(run()) > 0
    finally:
        loop.close()
