import socket

from relay.io.tcpinfo import read_rtt_us


def test_a_connection_of_loopback_is_fast():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as a,
        server.accept()[0] as b,
    ):
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
