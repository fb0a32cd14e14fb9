"""The programs that hosts run as text.

The others are run where they are used (tests/fleet, tests/roles).
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from engine.scripts import SCRIPTS, script


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-c", script(name), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def listener() -> Iterator[str]:
    """Yield a port on which a server listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield str(server.getsockname()[1])


def shut() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_the_sent_text_is_the_program_without_its_docstring(name: str) -> None:
    whole = (SCRIPTS / f"{name}.py").read_text()
    assert whole.startswith('"""')
    assert script(name).startswith("import ")
    assert whole.endswith(script(name))


def test_the_time_of_a_connection_is_reported_or_null(listener: str) -> None:
    found = json.loads(run("connect_times", f"near,127.0.0.1,{listener}", f"gone,127.0.0.1,{shut()}").stdout)
    assert isinstance(found["near"], float)
    assert found["gone"] is None


def test_a_port_is_free_when_no_program_listens(listener: str) -> None:
    assert run("free_ports", shut(), shut()).returncode == 0
    taken = run("free_ports", shut(), listener)
    assert taken.returncode != 0
    assert "Address already in use" in taken.stderr
