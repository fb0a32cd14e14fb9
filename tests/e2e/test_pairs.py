"""Every distribution meets every program and runner, and every front.

The rows are a covering array: each pair of a distribution with a program and runner is in one of
them, and each front is with ours and with derper where it can be. Debian 12 with all of them is in
the other files of this folder; Enterprise Linux with Docker is in test_distributions.py.
Each row is one edit and one deploy on a host that has the row before it, is proved, has nothing to
do the second time, which takes six turns, and passes the packets of two real nodes.
"""

from __future__ import annotations

from typing import Any

import pytest

import lab
from tests.e2e.desk import Desk
from tests.e2e.far import deployed_in_few_turns
from tests.e2e.steps import relayed

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
ONLY = ("hs1", "sg1", "ub1", "el1", "acme", "site-a", "site-b")
SELF_SIGNED = {"source": "self-signed"}
UFW = "ufw allow 22/tcp && ufw --force enable"

# Host, command on it before, program, runner, front, and more settings.
ROWS: tuple[tuple[str, str, str, str, str, dict[str, Any]], ...] = (
    ("sg1", "", "python", "systemd", "nginx-stream", {"certificate": SELF_SIGNED}),
    ("sg1", "", "derper", "systemd", "direct", {"certificate": SELF_SIGNED, "ports": {"https": 12345}}),
    ("sg1", "", "derper", "supervisord", "nginx", {}),
    ("sg1", "", "derper", "docker", "direct", {"ports": {"https": 1234}}),
    ("ub1", UFW, "derper", "docker", "nginx", {}),
    ("ub1", "", "derper", "supervisord", "direct", {"ports": {"https": 3489}}),
    ("ub1", "", "derper", "systemd", "nginx", {}),
    ("ub1", "ufw disable", "python", "systemd", "nginx-stream", {}),
    ("el1", "", "python", "systemd", "direct", {"certificate": SELF_SIGNED}),
    ("el1", "", "derper", "systemd", "nginx", {}),
    ("el1", "", "derper", "supervisord", "nginx", {}),
)


@pytest.mark.parametrize(
    ("host", "before", "program", "under", "front", "settings"),
    ROWS,
    ids=["-".join([row[0], *row[2:5]]) for row in ROWS],
)
def test_a_pair(
    desk: Desk,
    stage: lab.Lab,
    derper_archive: str,
    host: str,
    before: str,
    program: str,
    under: str,
    front: str,
    settings: dict[str, Any],
) -> None:
    if before:
        stage.run_in(host, ["sh", "-ec", before])
    docker = {"archive": derper_archive} if under == "docker" else None
    reset = dict.fromkeys(("certificate", "ports", "docker"))
    desk.edit(
        host,
        **{
            **reset,
            "docker": docker,
            "front": front,
            "relay": {"program": program, "under": under},
            **settings,
        },
    )
    deployed_in_few_turns(desk, host)
    relayed(desk, host)
