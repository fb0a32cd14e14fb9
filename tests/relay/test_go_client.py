"""The stock Go client library as client: `tests/go`, over each transport.

With derper as well, so that the checks themselves are held against the reference.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.relay import generator, servers
from tests.relay import goclient

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

MESH_KEY = "0123456789abcdef" * 4
TRANSPORTS = ["plain", "tls12", "tls13", "websocket", "websocket-tls"]


@pytest.fixture(scope="module")
def program() -> Path:
    return goclient.build()


def _server(name: str, folder: Path) -> servers.Server:
    psk = folder / "mesh.key"
    psk.write_text(MESH_KEY + "\n")
    flags = ("-mesh-psk-file", str(psk))
    return servers.relay(*flags) if name == "relay" else servers.derper(generator.build_derper(), *flags)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", ["relay", "derper"])
def test_stock_go_client(name: str, transport: str, program: Path, tmp_path: Path) -> None:
    over_tls = transport not in ("plain", "websocket")
    with servers.running(_server(name, tmp_path), tmp_path, tls=over_tls) as target:
        results = _checks(program, transport, target)
    failures = [f"{r['check']}: {r['why']}" for r in results if not r["ok"]]
    assert failures == []
    assert len(results) == (12 if "websocket" in transport else 16)


def _checks(program: Path, transport: str, target: servers.Running) -> list[dict[str, Any]]:
    argv = [*goclient.argv(program, target, transport.removesuffix("-tls")), "-mesh-key", MESH_KEY]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
