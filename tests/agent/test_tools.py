"""The agent's small tools, without a host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILES = Path(__file__).parent.parent.parent / "files"
GET = "import json,sys; from agent.tools import http_get; print(json.dumps(http_get({'url': sys.argv[1]})))"


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999999/", "http://127.0.0.1:port/", "http://127.0.0.1:1/"]
)
def test_an_address_that_cannot_be_asked_is_a_problem_and_no_crash(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", GET, url],
        cwd=FILES,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    status, body, problem = json.loads(done.stdout)
    assert (status, body) == (0, "")
    assert problem.startswith(f"{url}: ")
