"""Packets are counted before the host's firewall, and what it answers after it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.scripts import script

COUNTED = ("tcp/4/443", "tcp/6/443", "tcp/4/80", "udp/4/3478", "udp/6/3478")
RULES = """table inet host { chain input { type filter hook input priority 0; policy accept;
  tcp dport 443 drop
  udp dport 3478 drop
}
}
"""
ANSWER = """
import socket
tcp = socket.create_server(("", 80))
print("up", flush=True)
while True:
    tcp.accept()[0].recv(1)
"""
# It knocks until its input ends.
KNOCK = """
import select, sys
sys.path.insert(0, sys.argv[1])
from probe.arrivals import Unanswered, knock
words = [word.split(",") for word in sys.argv[2:]]
places = [Unanswered(proto, address, int(port)) for proto, address, port in words]
print("up", flush=True)
knock(places, lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
"""


class Pair:
    """Two namespaces, `near` and `host`, with a cable."""

    def __init__(self) -> None:
        self.tag = f"dfc{os.getpid()}"

    def argv(self, name: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self.tag}-{name}", *argv]

    def run(self, name: str, *argv: str, **more: Any) -> str:
        inside = self.argv(name, *argv)
        done = subprocess.run(inside, check=True, capture_output=True, text=True, timeout=60, **more)
        return done.stdout


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    try:
        for name in ("near", "host"):
            subprocess.run(["ip", "netns", "add", f"{pair.tag}-{name}"], check=True)
            pair.run(name, "ip", "link", "set", "lo", "up")
        pair.run("near", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
                 "netns", f"{pair.tag}-host")  # fmt: skip
        for last, name in enumerate(("near", "host"), 1):
            pair.run(name, "ip", "address", "add", f"10.98.1.{last}/24", "dev", "eth0")
            pair.run(name, "ip", "address", "add", f"fd98::{last}/64", "dev", "eth0", "nodad")
            pair.run(name, "ip", "link", "set", "eth0", "up")
        pair.run("host", "nft", "-f", "-", input=RULES)
        yield pair
    finally:
        for name in ("near", "host"):
            subprocess.run(["ip", "netns", "delete", f"{pair.tag}-{name}"], check=False)


def counted(pair: Pair, *places: str, source: str = "near") -> dict[str, list[int]]:
    """Return what the host counts while a program in `source` knocks at these places."""
    knocking = [sys.executable, "-c", KNOCK, str(Path(__file__).parents[2]), *places]
    argv = pair.argv(source, *knocking)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as knocker:
        assert knocker.stdout
        assert knocker.stdout.readline() == "up\n"
        output = pair.run("host", sys.executable, "-I", "-c", script("count_arrivals"), "3", *COUNTED)
    found: dict[str, list[int]] = json.loads(output)
    assert set(found) == set(COUNTED)
    return {name: pair for name, pair in found.items() if pair != [0, 0]}


def test_what_the_hosts_own_firewall_drops_has_arrived(pair: Pair) -> None:
    found = counted(pair, "tcp,10.98.1.2,443", "udp,10.98.1.2,3478", "tcp,fd98::2,443", "udp,fd98::2,3478")
    assert set(found) == {"tcp/4/443", "udp/4/3478", "tcp/6/443", "udp/6/3478"}
    assert all(arrived >= 3 and answered == 0 for arrived, answered in found.values())


def test_what_is_answered_is_told_apart(pair: Pair) -> None:
    with subprocess.Popen(pair.argv("host", sys.executable, "-c", ANSWER), stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()
            arrived, answered = counted(pair, "tcp,10.98.1.2,80")["tcp/4/80"]
        finally:
            server.kill()
    assert arrived >= 3
    assert answered >= 3


def test_what_a_security_group_drops_and_what_the_host_says_to_itself_do_not_count(pair: Pair) -> None:
    pair.run("near", "nft", "-f", "-", input=RULES.replace("input", "output"))
    assert counted(pair, "tcp,10.98.1.2,443", "udp,10.98.1.2,3478") == {}
    assert counted(pair, "tcp,10.98.1.2,443", "tcp,10.98.1.2,80", source="host") == {}
