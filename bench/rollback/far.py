"""The host at a distance: the turns and bytes of one verb's connections to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lab
from inventory.checkout import CHECKOUT

PORT = 14022
RTT = "100ms"


@dataclass
class Wire:
    """The counts of `lab.delay`, once the block has ended."""

    connections: int = 0
    turns: int = 0
    bytes_up: int = 0


def ssh_of(stage: lab.Lab, user_key: str) -> dict[str, object]:
    """Return the `ssh` of hk1 behind the proxy, and pin its key there."""
    lines = stage.known_hosts.read_text().splitlines()
    key = next(line.split(maxsplit=1)[1] for line in lines if line.startswith("hk1."))
    stage.known_hosts.write_text("\n".join([*lines, f"[127.0.0.1]:{PORT} {key}", ""]))
    return {"address": "127.0.0.1", "port": PORT, "user": "root", "key": user_key}


@contextmanager
def proxied(stage: lab.Lab) -> Iterator[Wire]:
    """Run the proxy in the lab's network, and count what passes."""
    to = f"{stage.topology.ipv4('hk1')}:22"
    argv = [sys.executable, "-m", "lab.delay", "--listen", f"127.0.0.1:{PORT}", "--to", to, "--rtt", RTT]
    wire = Wire()
    with subprocess.Popen([*stage.enter, *argv], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout
        try:
            proxy.stdout.readline()  # it listens
            yield wire
        finally:
            proxy.send_signal(signal.SIGTERM)
            counts = json.loads(proxy.stdout.read().splitlines()[-1])
    wire.connections, wire.turns, wire.bytes_up = (
        counts[name] for name in ("connections", "turns", "bytes_up")
    )
