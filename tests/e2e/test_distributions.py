"""Other distributions than Debian: deployed, proved, used by real nodes, and left as they were.

The roots are made of Debian's programs in the likeness of Rocky Linux 9 and Ubuntu 24.04
(`lab.enterprise`, `lab.ubuntu`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import lab
from lab.client import Client
from tests.e2e.desk import Desk
from tests.e2e.steps import exchange, settled
from tests.support.labs import own_lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
CODES = {"el1": "tk", "ub1": "se"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    with own_lab(tmp_path_factory, "distributions", only=("hs1", *CODES, "acme", "site-a", "site-b")) as own:
        yield own


@pytest.fixture(scope="module")
def nodes(desk: Desk) -> tuple[Client, Client]:
    """Two nodes that can meet only through a relay."""
    return desk.stage.clients["site-a"], desk.stage.clients["site-b"]


def packages_pass(desk: Desk, nodes: tuple[Client, Client], host: str) -> None:
    """Send real nodes' packets through the relay of this host."""
    region = int(next(r["id"] for r in [desk.region(host)]))
    for node in nodes:
        node.join()
        node.tailscale("debug", "force-prefer-derp", str(region))
        node.tailscale("debug", "restun")
    exchange(nodes, CODES[host])


def test_enterprise_linux(desk: Desk, nodes: tuple[Client, Client]) -> None:
    ran = settled(desk, "el1")
    assert {"package:python3.11", "package:nginx"} <= set(ran.changed("el1"))
    packages_pass(desk, nodes, "el1")
