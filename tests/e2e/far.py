"""A host that is far away: a proxy before its sshd delays each packet."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lab.topology import EVERY_HOST
from tests.e2e.desk import CHECKOUT, Desk, Ran

TURNS = 6  # of a connection whose run changes nothing
# Longer than a busy machine's sshd pauses between its first line and its key exchange.
RTT = "250ms"


@contextmanager
def far_away(desk: Desk, host: str, rtt: str) -> Iterator[subprocess.Popen[str]]:
    """Let the site file lead to the host by such a proxy, and yield its process.

    It prints its counts when it is ended by SIGTERM.
    """
    address = f"{desk.stage.topology.ipv4(host)}:22"
    argv = [*desk.stage.enter, sys.executable, "-m", "lab.delay", "--rtt", rtt, "--to", address]
    with subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout
        port = json.loads(proxy.stdout.readline())["listening"].rpartition(":")[2]
        known, names = desk.stage.known_hosts.read_text(), EVERY_HOST[host].domain
        line = next(line for line in known.splitlines() if line.startswith(names))
        desk.stage.known_hosts.write_text(f"{known}[127.0.0.1]:{port} {line.split(maxsplit=1)[1]}\n")
        desk.edit(host, ssh={"address": "127.0.0.1", "port": int(port)})
        try:
            yield proxy
        finally:
            desk.edit(host, ssh=None)
            desk.stage.known_hosts.write_text(known)
            proxy.send_signal(signal.SIGTERM)


@contextmanager
def counted(desk: Desk, host: str) -> Iterator[dict[str, int]]:
    """Put a proxy before the host's sshd, and yield its counts, which are there afterwards."""
    counts: dict[str, int] = {}
    with far_away(desk, host, RTT) as proxy:
        try:
            yield counts
        finally:
            proxy.send_signal(signal.SIGTERM)
            assert proxy.stdout
            counts |= json.loads(proxy.stdout.read().splitlines()[-1])


def deployed_in_few_turns(desk: Desk, host: str) -> Ran:
    """Deploy with a proof, and again with nothing to do."""
    ran = desk.invoke("deploy", "--host", host, timeout_s=600)
    assert ran.code == 0, ran.why()
    assert ran.proof(host)["packets_passed"]
    unchanged_in_few_turns(desk, host)
    return ran


def unchanged_in_few_turns(desk: Desk, host: str) -> None:
    """Deploy with nothing to do, in six turns of each connection."""
    with counted(desk, host) as noop:
        again = desk.invoke("deploy", "--host", host)
    assert again.code == 0, again.why()
    changed = again.changed(host) + again.changed("headscale")
    assert changed == [], changed
    assert noop["turns"] == TURNS * noop["connections"], noop
