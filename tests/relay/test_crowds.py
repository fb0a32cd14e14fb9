"""Ten thousand idle clients, churn, a killed relay, with Go's real clients.

Needs the Go programs.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bench.relay import generator, servers
from tests.relay import goclient
from tests.relay.live import Live, Steady, relay

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MB = 1_000_000


def _generate(live: Live, *args: str) -> generator.Run:
    return generator.run(generator.build(), list(args), live.running, None, timeout_s=500)


def test_ten_thousand_idle_clients(tmp_path: Path) -> None:
    """They cost little, a pair beside them is not slowed, and each of them still works after its
    idleness.
    """
    with relay(tmp_path) as live, live.connect() as alice, live.connect() as bob:
        steady = Steady(alice, bob)
        run = _generate(live, "idle", "-count", "10000", "-moved", "9600", "-batch", "8")
        stream = steady.finish()
        live.assert_undisturbed()
    assert run["idle"].fields["connections"] == 10_000
    assert run["moved"].fields["delivered"] == run["moved"].fields["sent"] == 80_000
    assert (run["idle"].usage.rss - run["empty"].usage.rss) / 10_000 < 30_000
    assert stream.received == stream.sent


def test_churn_does_not_grow_it(tmp_path: Path) -> None:
    with relay(tmp_path) as live:
        first = _generate(live, "churn", "-count", "3000")["settled"].usage.rss
        second = _generate(live, "churn", "-count", "6000")["settled"].usage.rss
        live.assert_undisturbed()
        assert live.metrics()["derp_current_connections"] == 0
    assert second - first < 4 * MB
    assert second < 80 * MB


@pytest.mark.parametrize("name", ["relay", "derper"])
def test_killed_and_started_again(name: str, tmp_path: Path) -> None:
    """Stock clients come back by themselves; derper is held to the same."""
    program = goclient.build()
    server = servers.relay() if name == "relay" else servers.derper(generator.build_derper())
    with servers.running(server, tmp_path) as target:
        port = target.port
        with subprocess.Popen(
            [*goclient.argv(program, target, "tls13"), "-steady", "10s"], stdout=subprocess.PIPE, text=True
        ) as clients:
            assert clients.stdout is not None and clients.stdout.readline() == "connected\n"
            time.sleep(2)
            target.process.send_signal(signal.SIGKILL)
            target.process.wait()
            with servers.running(server, tmp_path, port=port):
                outcome = json.loads(clients.stdout.read())
    assert outcome["reconnects"] == 2
    assert outcome["longest_gap_ms"] < 3000
    assert outcome["received"] > 300


def test_reload_under_load(tmp_path: Path) -> None:
    """SIGHUP with a new certificate, again and again, while packets pass and clients come.

    No client is dropped.
    """
    with relay(tmp_path) as live, live.connect() as alice, live.connect() as bob:
        steady = Steady(alice, bob)
        over = threading.Event()

        def reload() -> None:
            while not over.wait(0.1):
                live.signal(signal.SIGHUP)

        reloading = threading.Thread(target=reload)
        reloading.start()
        try:
            run = _generate(live, "pairs", "-pairs", "10", "-seconds", "3", "-rate", "5000", "-batch", "0")
            churn = _generate(live, "churn", "-count", "500")
        finally:
            over.set()
            reloading.join()
        stream = steady.finish()
        live.assert_undisturbed()
    assert run["end"].fields["delivered"] > 14_000
    assert churn["end"].fields["handshakes"] == 500
    assert stream.received == stream.sent
