"""The rules at work: real nft and real packets, in namespaces that the tests make.

near -- host -- inner -- far: the rules are on `host`, and `inner` is to it what a container is.
The way from `inner` to `far` takes 1,280 bytes at most.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.roles.test_units import rules

LINKS = (("near", "host", 1), ("host", "inner", 2), ("inner", "far", 3))
ECHO = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 3478))
print("up", flush=True)
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(data, peer)
"""
# Answers a connection that sends something with 200 kB. One that sends nothing stays.
ANSWER = """
import asyncio, sys
async def serve(reader, writer):
    if await reader.read(1):
        writer.write(bytes(200_000))
        await writer.drain()
        writer.close()
async def main():
    for port in map(int, sys.argv[1:]):
        await asyncio.start_server(serve, ["0.0.0.0", "::"], port, backlog=4096)
    print("up", flush=True)
    await asyncio.sleep(999)
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
asyncio.run(main())
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as s:
    s.settimeout(5)
    s.sendall(b"x")
    got = 0
    while data := s.recv(65536):
        got += len(data)
print(got)
"""
STUN = """
import socket, sys
answered = 0
for turn in range(3):
    for number in range(int(sys.argv[2])):
        family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(2)
            s.bind(("", 20000 + number))
            s.sendto(bytes(40), (sys.argv[1], 3478))
            answered += len(s.recv(100)) == 40
print(answered)
"""
IDLE = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
kept = []
for number in range(int(sys.argv[3])):
    try:
        source = (sys.argv[4 + number % (len(sys.argv) - 4)], 0)
        kept.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 3, source))
    except OSError:
        pass
print(len(kept), flush=True)
sys.stdin.read()
"""


class Net:
    """The four namespaces, by name."""

    def __init__(self) -> None:
        self.tag = f"dft{os.getpid()}"

    def of(self, name: str) -> str:
        return f"{self.tag}-{name}"

    def run(self, name: str, *argv: str) -> str:
        inside = ["ip", "netns", "exec", self.of(name), *argv]
        return subprocess.run(inside, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def python(self, name: str, script: str, *argv: str) -> str:
        return self.run(name, sys.executable, "-c", script, *argv)

    @contextmanager
    def program(self, name: str, script: str, *argv: str) -> Iterator[str]:
        """Run a program until it is told to end, and yield the first line that it prints."""
        inside = ["ip", "netns", "exec", self.of(name), sys.executable, "-c", script, *argv]
        with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline().strip()
            finally:
                process.kill()

    def tracked(self) -> int:
        return int(self.run("host", "cat", "/proc/sys/net/netfilter/nf_conntrack_count"))

    def load(self, case: str, folder: Path) -> None:
        path = folder / "rules.nft"
        path.write_text(rules(case) or "")
        self.run("host", "nft", "-f", str(path))


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    net = Net()
    names = ("near", "host", "inner", "far")
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", net.of(name)], check=True)
            net.run(name, "ip", "link", "set", "lo", "up")
            net.run(name, "sh", "-c", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        for left, right, number in LINKS:
            net.run(left, "ip", "link", "add", f"to{right}", "type", "veth", "peer", "name", f"to{left}",
                    "netns", net.of(right))  # fmt: skip
            for end, other, last in ((left, right, 1), (right, left, 2)):
                for address in (f"10.99.{number}.{last}/24", f"fd99:{number}::{last}/64"):
                    net.run(end, "ip", "address", "add", address, "dev", f"to{other}", *_at_once(address))
                net.run(end, "ip", "link", "set", f"to{other}", "up")
        for name, by in (("near", "10.99.1.2"), ("inner", "10.99.2.1"), ("far", "10.99.3.1")):
            net.run(name, "ip", "route", "add", "default", "via", by)
        net.run("host", "ip", "route", "add", "10.99.3.0/24", "via", "10.99.2.2")
        net.run("inner", "ip", "link", "set", "tofar", "mtu", "1280")
        net.load("bare", tmp_path)
        yield net
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", net.of(name)], check=False)


def _at_once(address: str) -> tuple[str, ...]:
    """Return the words without which an IPv6 address waits for the test of duplicates."""
    return ("nodad",) if ":" in address else ()


@pytest.mark.parametrize("address", ["10.99.1.2", "fd99:1::2"])
def test_stun_leaves_nothing_in_the_table_of_connections(net: Net, address: str) -> None:
    """A full table lets nobody in, through ssh neither."""
    with net.program("host", ECHO):
        assert net.python("near", STUN, address, "16667") == "50001"
    assert net.tracked() <= 100


def test_stun_whose_state_is_needed_leaves_room_in_the_smallest_table(net: Net, tmp_path: Path) -> None:
    net.load("docker", tmp_path)
    with net.program("host", ECHO), pytest.raises(subprocess.CalledProcessError):
        net.python("near", STUN, "10.99.1.2", "4000")
    assert 500 < net.tracked() < 2500


def test_connections_leave_nothing_there_from_outside_or_over_loopback(net: Net) -> None:
    with net.program("host", ANSWER, "80", "443", "81"):
        for where, address, port in (("near", "10.99.1.2", "443"), ("near", "fd99:1::2", "80"),
                                     ("host", "127.0.0.1", "81"), ("host", "10.99.1.2", "443")):  # fmt: skip
            before = net.tracked()
            for _ in range(20):
                assert net.python(where, ASK, address, port) == "200000"
            assert net.tracked() - before <= 5, (where, address, port)


def test_what_is_closed_is_closed_and_what_the_host_asks_itself_is_answered(net: Net) -> None:
    with net.program("host", ANSWER, "8443", "22"), net.program("near", ANSWER, "443"):
        assert net.python("near", ASK, "10.99.1.2", "22") == "200000"
        with pytest.raises(subprocess.CalledProcessError):
            net.python("near", ASK, "10.99.1.2", "8443")
        assert net.python("host", ASK, "10.99.1.1", "443") == "200000"


def test_what_the_host_forwards_is_translated_as_before(net: Net) -> None:
    """A container's requests to some port 443 need their state."""
    chain = "type nat hook postrouting priority srcnat; ip saddr 10.99.2.0/24 masquerade;"
    net.run("host", "nft", f"table ip theirs {{ chain out {{ {chain} }}; }}")
    net.run("near", "ip", "route", "delete", "default")
    with net.program("near", ANSWER, "443"):
        assert net.python("inner", ASK, "10.99.1.1", "443") == "200000"


def test_a_way_with_small_packets_is_found(net: Net) -> None:
    """The error that says so is about a connection that the kernel does not track."""
    with net.program("host", ANSWER, "443"):
        assert net.python("far", ASK, "10.99.2.1", "443") == "200000"
        assert "mtu 1280" in net.run("host", "ip", "route", "get", "10.99.3.2")


@pytest.mark.parametrize(
    ("address", "crowd", "other"),
    [
        ("10.99.1.2", ["10.99.1.1"], "10.99.1.9"),
        ("fd99:1::2", [f"fd99:1::{number}" for number in range(16, 48)], "fd99:9::1"),
    ],
)
def test_one_address_cannot_take_all_connections(
    net: Net, address: str, crowd: list[str], other: str
) -> None:
    """1,024 come in at once, and 32 a second after that. IPv6: those of one /64."""
    for more in [*crowd, other]:
        net.run("near", "ip", "address", "replace", f"{more}/{64 if ':' in more else 24}", "dev", "tohost",
                *_at_once(more))  # fmt: skip
    net.run("host", "ip", "-6", "route", "add", "fd99:9::/64", "dev", "tonear")
    with net.program("host", ANSWER, "443"):
        started = time.monotonic()
        with net.program("near", IDLE, address, "443", "3000", *crowd) as kept:
            took_s = time.monotonic() - started
            assert 1000 <= int(kept) <= 1024 + 32 * (took_s + 1)
            with net.program("near", IDLE, address, "443", "10", other) as others:
                assert int(others) == 10
    assert net.tracked() <= 100
