"""SIGTERM with clients connected: they hear of it, and close in a spread, whatever they do.

Real processes.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from relay import client as derp
from tests.relay.live import Live, relay

CLIENTS = 200  # a spread of one second


def _ends_well(live: Live) -> None:
    assert live.running.process.wait(10) == 0
    assert "Traceback" not in live.log()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_clients_that_leave_during_the_drain_take_nothing_from_the_others(tmp_path: Path, tls: bool) -> None:
    with relay(tmp_path, "-drain", "5s", tls=tls) as live, ExitStack() as stack:
        peers = [stack.enter_context(live.connect()) for _ in range(CLIENTS)]
        live.signal(signal.SIGTERM)
        peers[0].expect(derp.Restarting)
        began = time.monotonic()
        for peer in peers[1::2]:
            peer.reset()
        for peer in peers[2::2]:
            assert peer.expect(derp.Restarting).try_for_ms > 0
            peer.wait_hangup()
        assert time.monotonic() - began > 0.5, "the rest of them are still spread"
        _ends_well(live)


def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with relay(tmp_path, "-drain", "5s", tls=False) as live, ExitStack() as stack:
        peers = [stack.enter_context(live.connect()) for _ in range(CLIENTS)]
        live.signal(signal.SIGTERM)
        peers[0].expect(derp.Restarting)
        began = time.monotonic()
        live.signal(signal.SIGTERM)
        for peer in peers:
            peer.wait_hangup()
        _ends_well(live)
        assert time.monotonic() - began < 0.8
