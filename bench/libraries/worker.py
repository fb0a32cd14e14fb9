"""`python -m bench.libraries.worker SIDE`: measure one side in its own process, print JSON.

The task is JSON on standard input: {} for frames, or the arguments of `ask`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from bench.libraries.relay_with import exchange
from relay.http import websocket
from relay.io import http_client
from relay.io.loop import Loop

FRAMES = 20_000
PACKET = 1200


def frames() -> dict[str, float]:
    """Return a server's CPU µs for a message of 1,200 bytes: in, 16 at once in, and out."""
    payload = os.urandom(PACKET)
    message = websocket.WebSocket(client=True).pack(payload)
    server = websocket.WebSocket()
    found = {}
    feed, pack = server.feed, server.pack
    tasks = (("feed", message, feed), ("feed_16", message * 16, feed), ("pack", payload, pack))
    for name, data, step in tasks:
        each = max(1, len(data) // len(message))
        begun = time.process_time()
        for _ in range(FRAMES // each):
            step(data)
        found[name] = (time.process_time() - begun) / (FRAMES // each * each) * 1e6
    assert server.closed == 0
    return found


def ask(url: str, count: int) -> dict[str, float]:
    """Return the CPU µs of one admission request over a connection that is kept."""

    async def run() -> float:
        client = http_client.HttpClient()
        request = http_client.ClientRequest("POST", url, b"x" * 120, (("Content-Type", "application/json"),))
        await client.send(request, 5)
        begun = time.process_time()
        for _ in range(count):
            assert (await client.send(request, 5)).status == 200
        spent = time.process_time() - begun
        client.close()
        await asyncio.sleep(0.01)
        return spent

    with asyncio.Runner(loop_factory=Loop) as runner:
        return {"request": runner.run(run()) / count * 1e6}


if __name__ == "__main__":
    exchange(sys.argv[1])
    task = json.loads(sys.stdin.read())
    print(json.dumps(ask(**task) if task else frames()))
