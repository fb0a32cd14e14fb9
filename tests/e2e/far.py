"""A host that is far away: a proxy before its sshd delays each packet."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lab.topology import EVERY_HOST
from tests.e2e.desk import CHECKOUT, Desk


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
