"""The STUN sockets on loopback: both ways to answer, on IPv4, IPv6 and IPv6 that takes IPv4 too."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from typing import NoReturn

import pytest

from relay.core import stun
from relay.core.counts import StunCounts
from relay.io import pktinfo, stun_batch, stun_socket
from relay.io.loop import Loop
from tests.relay import vectors as v

UNUSUAL = bytes.fromhex(next(iter(v.STUN_ANSWERED.values())))
BATCHED = pytest.param(
    stun_batch.BatchedStunSocket,
    marks=pytest.mark.skipif(stun_batch._recvmmsg is None, reason="this C library cannot read many at once"),
)
SO_TIMESTAMP = 29  # Linux; Python has no name for it
KINDS = pytest.mark.parametrize("kind", [stun_socket.StunSocket, BATCHED])
FAMILIES = pytest.mark.parametrize(
    ("where", "client"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1")]
)


class Asked:
    """A STUN socket that reads on demand, and a client of it."""

    def __init__(
        self, kind: type[stun_socket.StunSocket], where: str = "127.0.0.1", client: str = "127.0.0.1"
    ) -> None:
        self.loop = Loop()
        server = bound(where)
        self.client = bound(client)
        self.client.connect((client, server.getsockname()[1]))
        self.is_silent = False
        self.socket = kind(self.loop, server, lambda: self.is_silent)
        self.requests = self.socket.requests

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.client.send(datagram)

    def send_from_port_0(self) -> None:
        request = stun.pack_request(os.urandom(12))
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
            raw.sendto(
                struct.pack(">HHHH", 0, self.socket.port, 8 + len(request), 0) + request, ("127.0.0.1", 0)
            )

    def wake(self) -> None:
        self.socket._read()

    def answers(self) -> list[bytes]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(self.client.recv(2000))
        return found

    def assert_answered(self, txids: list[bytes]) -> None:
        """Exactly these were answered, in this order, with the client's own address."""
        answers = self.answers()
        assert len(answers) == len(txids)
        host, port = self.client.getsockname()[:2]
        for answer, txid in zip(answers, txids, strict=True):
            assert stun.parse_response(answer, txid) == (ip_address(host), port)
            assert len(answer) == (44 if ip_address(host).version == 6 else 32)

    def close(self) -> None:
        self.socket.close()
        self.client.close()
        self.loop.close()


def bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((host, 0))
    sock.setblocking(False)
    return sock


@pytest.fixture
def ask() -> Iterator[Callable[..., Asked]]:
    made: list[Asked] = []

    def make(*args: object) -> Asked:
        made.append(Asked(*args))  # type: ignore[arg-type]  # arguments of any case
        return made[-1]

    yield make
    for asked in made:
        asked.close()


def txids(count: int) -> list[bytes]:
    return [os.urandom(12) for _ in range(count)]


@KINDS
@FAMILIES
@pytest.mark.parametrize("count", [1, 5, 32, 33, 100])
def test_every_request_is_answered_with_its_senders_address(ask, kind, where, client, count):
    asked, wanted = ask(kind, where, client), txids(count)
    asked.send(*map(stun.pack_request, wanted))
    asked.wake()
    asked.assert_answered(wanted)
    assert asked.requests == StunCounts(success=count)
    asked.wake()  # nothing there any more
    assert asked.requests == StunCounts(success=count)


@KINDS
@FAMILIES
def test_bad_datagrams_in_the_middle_get_nothing_and_disturb_no_client(ask, kind, where, client):
    asked, wanted = ask(kind, where, client), txids(9)
    good = [stun.pack_request(txid) for txid in wanted]
    wrong = good[0][:-1] + bytes([good[0][-1] ^ 1])
    asked.send(
        b"",
        *good[:3],
        wrong,
        b"\0" * 40,
        good[3],
        b"x" * 1500,
        *good[4:8],
        os.urandom(1400),
        good[8],
        good[8] + b"more",
        good[8][:39],
    )
    asked.wake()
    asked.assert_answered(wanted)
    assert asked.requests == StunCounts(success=9, not_stun=7)


@KINDS
@FAMILIES
def test_unusual_requests_are_answered_among_usual_ones(ask, kind, where, client):
    asked, wanted = ask(kind, where, client), txids(3)
    usual = [stun.pack_request(txid) for txid in wanted]
    asked.send(usual[0], UNUSUAL, usual[1], b"no", UNUSUAL, usual[2])
    asked.wake()
    asked.assert_answered([wanted[0], v.TXID, wanted[1], v.TXID, wanted[2]])
    assert asked.requests == StunCounts(success=5, not_stun=1)


@KINDS
def test_what_stood_in_a_slot_before_is_never_answered_again(ask, kind):
    asked, wanted = ask(kind), txids(4)
    asked.send(*map(stun.pack_request, wanted))
    asked.wake()
    asked.assert_answered(wanted)
    asked.send(b"", stun.pack_request(wanted[0])[:39], stun.pack_request(wanted[0])[:8])
    asked.wake()
    asked.assert_answered([])
    assert asked.requests == StunCounts(success=4, not_stun=3)


@KINDS
def test_answers_of_both_lengths_in_one_socket(ask, kind):
    asked = ask(kind, "::", "127.0.0.1")
    with bound("::1") as six:
        six.connect(("::1", asked.socket.port))
        for _ in range(3):
            wanted = txids(4)
            for txid in wanted[:2]:
                asked.client.send(stun.pack_request(txid))
                six.send(stun.pack_request(txid))
            for txid in wanted[2:]:
                six.send(stun.pack_request(txid))
                asked.client.send(stun.pack_request(txid))
            asked.wake()
            asked.assert_answered(wanted)
            for txid in wanted:
                assert stun.parse_response(six.recv(2000), txid) == (IPv6Address("::1"), six.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports which address was asked")
@KINDS
@pytest.mark.parametrize(
    ("where", "asked_addresses"),
    [
        ("0.0.0.0", ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.1"]),
        ("::", ["127.0.0.2", "::1", "127.0.0.3", "::1", "127.0.0.2", "127.0.0.3"]),
        ("127.0.0.2", ["127.0.0.2"]),
    ],
)
def test_the_address_that_was_asked_answers(ask, kind, where, asked_addresses):
    asked = ask(kind, where, "127.0.0.1")
    clients = {4: bound("127.0.0.1"), 6: bound("::1")}
    with clients[4], clients[6]:
        for _ in range(3):
            wanted = [
                (ip_address(host), txid)
                for host, txid in zip(asked_addresses * 7, txids(len(asked_addresses) * 7), strict=True)
            ]
            for host, txid in wanted:
                clients[host.version].sendto(stun.pack_request(txid), (str(host), asked.socket.port))
            asked.wake()
            for host, txid in wanted:
                client = clients[host.version]
                answer, source = client.recvfrom(2000)
                assert (ip_address(source[0]), source[1]) == (host, asked.socket.port)
                assert stun.parse_response(answer, txid)[1] == client.getsockname()[1]
    assert asked.requests == StunCounts(success=3 * 7 * len(asked_addresses))


@KINDS
def test_where_the_kernel_does_not_report_the_address_that_was_asked_it_chooses(ask, kind):
    asked, wanted = ask(kind, "::", "127.0.0.1"), txids(3)
    for level, option in (
        (socket.IPPROTO_IP, pktinfo.IP_PKTINFO),
        (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
    ):
        for is_on in (0, 1):  # nothing reported, and then again
            asked.socket._socket.setsockopt(level, option, is_on)
            asked.send(*map(stun.pack_request, wanted))
            asked.wake()
            asked.assert_answered(wanted)
        asked.socket._socket.setsockopt(level, option, 0)
    assert asked.requests == StunCounts(success=12)


def test_only_the_messages_about_the_address_are_replied_with():
    about = [(socket.IPPROTO_IP, pktinfo.IP_PKTINFO, b"\2\0\0\0" + bytes(range(8)))]
    six = [(socket.IPPROTO_IPV6, pktinfo.IPV6_PKTINFO, bytes(range(16)) + b"\2\0\0\0")]
    other = [(socket.SOL_SOCKET, SO_TIMESTAMP, bytes(16))]
    assert pktinfo.reply(six + other + about) == [
        (socket.IPPROTO_IPV6, pktinfo.IPV6_PKTINFO, bytes(range(16)) + bytes(4)),
        (socket.IPPROTO_IP, pktinfo.IP_PKTINFO, bytes(4) + bytes(range(8))),
    ]


def test_a_system_without_them_serves_all_the_same(monkeypatch):
    with bound("127.0.0.1") as sock:
        monkeypatch.setattr(sys, "platform", "darwin")
        pktinfo.enable(sock)
        assert sock.getsockopt(socket.IPPROTO_IP, pktinfo.IP_PKTINFO) == 0
        monkeypatch.undo()
        pktinfo.enable(sock)
        assert sock.getsockopt(socket.IPPROTO_IP, pktinfo.IP_PKTINFO) == 1


@KINDS
@pytest.mark.parametrize("where", ["127.0.0.1", "::1"])
def test_silence_is_counted_and_ends(ask, kind, where):
    asked, wanted = ask(kind, where, where), txids(3)
    asked.is_silent = True
    asked.send(*map(stun.pack_request, wanted), b"no", UNUSUAL)
    asked.wake()
    asked.assert_answered([])
    assert (asked.requests, asked.socket.silenced) == (StunCounts(not_stun=1), 4)
    asked.is_silent = False
    asked.send(stun.pack_request(wanted[0]))
    asked.wake()
    asked.assert_answered(wanted[:1])


@KINDS
def test_a_flood_lets_go_of_the_loop(ask, kind):
    asked, wanted = ask(kind), txids(300)
    asked.send(*map(stun.pack_request, wanted))
    asked.wake()
    assert asked.requests == StunCounts(success=stun_socket.MAX_PER_WAKE)
    asked.wake()
    asked.assert_answered(wanted)


@KINDS
@pytest.mark.skipif(os.geteuid() != 0, reason="a raw socket is needed to send from port 0")
@pytest.mark.parametrize("before", [0, 1, 3])
def test_an_answer_that_cannot_be_sent_costs_only_itself(ask, kind, before):
    asked, wanted = ask(kind), txids(5)
    requests = [stun.pack_request(txid) for txid in wanted]
    asked.send(*requests[:before])
    asked.send_from_port_0()
    asked.send_from_port_0()
    asked.send(*requests[before:])
    asked.send_from_port_0()
    asked.wake()
    asked.assert_answered(wanted)
    assert asked.requests == StunCounts(success=5, write_error=3)


@pytest.mark.skipif(stun_batch._recvmmsg is None, reason="this C library cannot read many at once")
def test_a_kernel_that_takes_a_part_is_given_the_rest(ask):
    asked, wanted = ask(stun_batch.BatchedStunSocket), txids(20)
    send, takes = asked.socket._send, iter([3, 0, 1, 7])

    def reluctant(fd: int, messages: int, count: int, flags: int) -> int:
        at_most = next(takes, count)
        if at_most == 0:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return send(fd, messages, min(count, at_most), flags)

    asked.socket._send = reluctant
    asked.send(*map(stun.pack_request, wanted))
    asked.wake()
    asked.assert_answered(wanted[:3] + wanted[4:])
    assert asked.requests == StunCounts(success=19, write_error=1)


@pytest.mark.skipif(stun_batch._recvmmsg is None, reason="this C library cannot read many at once")
@pytest.mark.parametrize(("number", "counted"), [(errno.EAGAIN, 0), (errno.EINTR, 0), (errno.ENOBUFS, 1)])
def test_a_read_that_fails_is_counted_unless_there_was_nothing(ask, number, counted):
    asked = ask(stun_batch.BatchedStunSocket)

    def broken(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    asked.socket._receive = broken
    asked.wake()
    assert asked.requests == StunCounts(read_error=counted)


@pytest.mark.parametrize(
    ("error", "counted"),
    [(BlockingIOError(), 0), (InterruptedError(), 0), (OSError(errno.ENOBUFS, "No buffer space"), 1)],
)
def test_a_single_read_that_fails_is_counted_unless_there_was_nothing(ask, error, counted):
    asked = ask(stun_socket.StunSocket)

    class Broken(socket.socket):
        def recvmsg_into(self, *_: object) -> NoReturn:
            raise error

    whole = asked.socket._socket
    with Broken(fileno=os.dup(whole.fileno())) as asked.socket._socket:
        asked.send(stun.pack_request(v.TXID))
        asked.wake()
        assert asked.requests == StunCounts(read_error=counted)
    asked.socket._socket = whole
    asked.wake()  # the next time all is well
    asked.assert_answered([v.TXID])
    assert asked.requests == StunCounts(success=1, read_error=counted)


@KINDS
def test_the_loop_wakes_it(ask, kind):
    asked = ask(kind)
    asked.send(stun.pack_request(v.TXID))
    asked.loop.run_until_complete(asyncio.sleep(0.05))
    asked.assert_answered([v.TXID])
    assert asked.socket.family == "ipv4"


@pytest.mark.parametrize("call", ["_recvmmsg", "_sendmmsg"])
@pytest.mark.parametrize("state", ["absent", "refused"])
def test_where_the_system_has_no_batches_datagrams_come_singly(monkeypatch, call, state):
    loop = Loop()
    with bound("127.0.0.1") as sock:
        if stun_batch._recvmmsg is not None:
            assert type(stun_batch.open_stun(loop, sock, bool)) is stun_batch.BatchedStunSocket
            loop.poller.forget(sock.fileno())
        monkeypatch.setattr(stun_batch, call, None if state == "absent" else lambda *_: -1)
        assert type(stun_batch.open_stun(loop, sock, bool)) is stun_socket.StunSocket
    loop.close()
    assert stun_batch._find("no_such_call") is None
