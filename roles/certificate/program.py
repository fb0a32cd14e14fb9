"""The certificate's program on the host, and its configuration.

files/certificate.py copies, reloads and checks the certificate. files/lineage.py orders it,
files/ledger.py counts the orders, and files/pause.py stops a program for them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache

from engine.facts import Facts
from engine.resource import Absent, File, Resource
from inventory.checkout import CHECKOUT
from inventory.model import Host
from roles import paths
from roles.certificate.contract import Orders
from roles.contract import ServedBy

_PROGRAM = CHECKOUT / "files" / "certificate.py"
_PARTS = {
    paths.CERTIFICATE_LINEAGE: CHECKOUT / "files" / "lineage.py",
    paths.CERTIFICATE_LEDGER: CHECKOUT / "files" / "ledger.py",
    paths.CERTIFICATE_PAUSE: CHECKOUT / "files" / "pause.py",
}


@cache
def _program_text() -> bytes:
    return _PROGRAM.read_bytes().split(b"\n", 1)[1]


@cache
def _part_texts() -> dict[str, bytes]:
    return {path: source.read_bytes() for path, source in _PARTS.items()}


def resources(
    host: Host,
    files: tuple[str, str],
    facts: Facts,
    served_by: ServedBy,
    orders: Orders | None,
) -> list[Resource]:
    """Return program and configuration, and the units that the configuration names.

    `files`: where chain and key are.
    """
    content = b"#!%s -I\n%s" % (facts.python_executable.encode(), _program_text())
    config = json.dumps(_config(host, files, served_by, orders), indent=2, sort_keys=True)
    return [
        *(File(path=path, content=text) for path, text in _part_texts().items()),
        File(
            path=paths.CERTIFICATE_PROGRAM,
            content=content,
            mode="0755",
            needs=tuple(f"file:{path}" for path in _PARTS),
        ),
        File(path=paths.CERTIFICATE_CONFIG, content=config.encode() + b"\n"),
        *served_by.units,
    ]


def absent() -> list[Resource]:
    """Return the removal of program and configuration. The units are removed by their front."""
    files = (paths.CERTIFICATE_PROGRAM, *_PARTS, paths.CERTIFICATE_CONFIG)
    return [Absent(path=path) for path in files]


def _config(
    host: Host, files: tuple[str, str], served_by: ServedBy, orders: Orders | None
) -> dict[str, object]:
    fullchain, key = files
    test, withdrawal = served_by.test, served_by.withdrawal
    return {
        "domain": host.domain,
        "fullchain": fullchain,
        "key": key,
        "acme": asdict(orders) | {"hook": paths.CERTIFICATE_PROGRAM} if orders else None,
        "served_at": served_by.at,
        "patience_s": 15,
        "copies": {"directory": paths.RELAY_CERTS, "group": paths.USER} if served_by.by_relay else None,
        "test": asdict(test) if test else None,
        "reload": served_by.reload,
        "withdrawal": asdict(withdrawal) if withdrawal else None,
    }
