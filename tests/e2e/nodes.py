"""What two real tailscale nodes do with a relay."""

from __future__ import annotations

import time

from lab.client import Client

MEBIBYTE = 1 << 20


def exchange(nodes: tuple[Client, Client], code: str) -> None:
    """Both ways through the relay of this code: a ping, and a file that arrives whole."""
    for node in nodes:
        node.wait_for_home(code, timeout_s=120)
    for one, other in (nodes, nodes[::-1]):
        # A node sends to the home that it last heard of, and answers where it last heard from the other: two that talk keep each other
        # on the old relay for up to a minute.
        deadline = time.monotonic() + 150
        while one.ping(other).relay != code:
            assert time.monotonic() < deadline, f"{one.name} does not reach {other.name} through {code}"
            time.sleep(0.5)
        transfer = one.send(other, 4 * MEBIBYTE)
        assert transfer.ok
        assert transfer.relay == code
