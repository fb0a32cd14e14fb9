"""Twenty renewals in a row, while clients connect all the time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lab.client import LabClient
from tests.e2e.desk import Desk
from tests.e2e.steps import due, meet, served_leaf, settled

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
RENEWALS = 20
# A new connection every 50 ms, verified as clients do, until standard input ends.
KNOCK = """
import hashlib, json, select, socket, ssl, sys
name, ca = sys.argv[1:]
context, made, leaves, failed = ssl.create_default_context(cafile=ca), 0, set(), []
while not select.select([sys.stdin], [], [], 0.05)[0]:
    try:
        with socket.create_connection((name, 443), timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=name) as tls:
                leaves.add(hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest())
        made += 1
    except OSError as error:
        failed.append(repr(error))
print(json.dumps([made, len(leaves), failed]))
"""


@contextmanager
def connecting(desk: Desk) -> Iterator[list[tuple[int, int, list[str]]]]:
    """Connect to hk1 all the time; then add the connections, their certificates and failures."""
    argv = [*desk.stage.enter_in("controller"), sys.executable, "-c", KNOCK, "hk1.derp.lab"]
    found: list[tuple[int, int, list[str]]] = []
    with subprocess.Popen(
        [*argv, str(desk.stage.ca)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as clients:
        try:
            yield found
            output, _ = clients.communicate(timeout=30)
            made, leaves, failed = json.loads(output)
            found.append((made, leaves, failed))
        finally:
            clients.kill()


def new_leaf(desk: Desk, known: set[str]) -> str:
    """Return the served leaf as soon as it is a new one, or after 10 s the one that is served.

    A connection that was on its way before the reload is still answered by a former worker of
    nginx, with the certificate before.
    """
    until = time.monotonic() + 10
    while (leaf := served_leaf(desk)) in known and time.monotonic() < until:
        time.sleep(0.1)
    return leaf


@pytest.mark.parametrize("front", ["nginx", "none"])
def test_no_handshake_fails_while_the_certificate_is_renewed(
    desk: Desk, nodes: tuple[LabClient, LabClient], edited: Callable[..., None], front: str
) -> None:
    """The host's own service renews, as its timer starts it, and no client notices."""
    edited("hk1", front=front)
    settled(desk)
    served = {served_leaf(desk)}
    with connecting(desk) as found, due(desk):
        for _ in range(RENEWALS):
            desk.stage.run_in("hk1", ["systemctl", "start", "derpfleet-certificate.service"], timeout_s=180)
            served.add(new_leaf(desk, served))
    [(made, leaves, failed)] = found
    assert len(served) == RENEWALS + 1
    assert failed == [] and leaves == RENEWALS + 1 and made > 5 * RENEWALS, (made, leaves, failed)
    meet(desk, nodes)
