"""Admission by the programs that really decide: a headscale and a tailscaled.

They know real nodes, which are then deleted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.relay import servers
from inventory.checkout import CHECKOUT
from tests.relay import tailnet
from tests.relay.tailnet import Tailnet

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(tailnet.needed()), reason=f"needs {tailnet.needed()}"),
]
FLAGS = {
    "headscale": ("-verify-client-url", f"{tailnet.HEADSCALE_URL}/verify"),
    "tailscaled": ("-verify-clients",),
}


@pytest.fixture
def net() -> Iterator[Tailnet]:
    with (
        tempfile.TemporaryDirectory(prefix="ad-") as folder,
        tailnet.tailnet(Path(folder), tailnet.build(), servers.relay()) as running,
    ):
        yield running


def metrics(net: Tailnet) -> str:
    """Return the relay's own page, asked for from its host's loopback."""
    return net.spaces.must(
        "srv", "curl", "-fsS", "--cacert", str(net.ca), "--resolve", f"{servers.HOST}:443:127.0.0.1",
        f"https://{servers.HOST}/metrics",
    )


def eventually(net: Tailnet, line: str, within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not any(found.startswith(line) for found in metrics(net).splitlines()):
        assert time.monotonic() < deadline, f"no {line}\n{net.log('relay')[-2000:]}"
        time.sleep(0.2)


@pytest.mark.parametrize("who", FLAGS)
def test_nodes_come_in_strangers_do_not_and_the_deleted_go(net: Tailnet, who: str) -> None:
    net.start_headscale()
    net.start_relay()
    net.join()
    net.reach("a", "b", 20)
    net.stop_relay()
    flags = [*FLAGS[who], *(("-socket", str(net.socket("a"))) if who == "tailscaled" else ())]
    net.start_relay(*flags, "-verify-recheck", "2s", "-verify-cache", "0")
    net.reach("a", "b", 20)
    reason = {"headscale": "verify_url", "tailscaled": "tailscaled"}[who]
    no, yes = ("refused", "allowed") if who == "headscale" else ("unknown", "known")
    eventually(net, f'relay_admissions{{reason="{reason}_{yes}"}} ')

    stranger = net.spaces.run(
        "srv", "env", f"SSL_CERT_FILE={net.ca}", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m",
        "relay.selftest", f"https://{servers.HOST}",
    )
    assert stranger.returncode == 1 and "the relay hung up" in stranger.stderr, stranger
    eventually(net, f'relay_admissions{{reason="{reason}_{no}"}} 1')
    assert 'relay_closes{reason="revoked' not in metrics(net)

    nodes = json.loads(net.headscale("nodes", "list", "-o", "json"))
    (doomed,) = [str(node["id"]) for node in nodes if node["given_name"] == "node-b"]
    net.headscale("nodes", "delete", "-i", doomed, "--force")
    eventually(net, f'relay_closes{{reason="revoked_{reason}_{no}"}} ')
    assert "Traceback" not in net.log("relay")
