"""Disco pings between two real nodes, ten a second, and the longest gap without an answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from lab.client import SOCKET, LabClient

EVERY_S, PATIENCE_S = 0.1, 0.3


@dataclass
class Pings:
    """When answers arrived, in the seconds of `time.monotonic`, from the first one on."""

    answers: list[float] = field(default_factory=list)

    def gap_s(self, start: float, end: float) -> float:
        """Return the longest time without an answer between these moments."""
        inside = [one for one in self.answers if start <= one <= end]
        moments = [start, *inside, end]
        return max(later - earlier for earlier, later in pairwise(moments))


@contextmanager
def pinging(one: LabClient, other: LabClient) -> Iterator[Pings]:
    """Let one node ping another while the block runs."""
    pings, ended, path, to = Pings(), threading.Event(), one.folder / SOCKET, other.ipv4

    def ping() -> None:
        while not ended.is_set():
            began = time.monotonic()
            if _answered(path, to):
                pings.answers.append(time.monotonic())
            ended.wait(max(0.0, began + EVERY_S - time.monotonic()))

    thread = threading.Thread(target=ping)
    thread.start()
    try:
        yield pings
    finally:
        ended.set()
        thread.join()


def _answered(path: Path, to: str) -> bool:
    """Ask the node's tailscaled for one ping. Return whether it was answered in time."""
    request = f"POST /localapi/v0/ping?ip={to}&type=disco HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(PATIENCE_S)
        try:
            asked.connect(str(path))
            asked.sendall(request.encode())
            text = b"".join(iter(lambda: asked.recv(4096), b""))
        except OSError:
            return False
    said = json.loads(text.partition(b"\r\n\r\n")[2] or b"{}")
    return "LatencySeconds" in said and not said.get("Err")
