"""The agent's small tools, without a host."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

FILES = Path(__file__).parent.parent.parent / "files"
ASK = "import json,sys; from agent.tools import http_get as g; print(json.dumps(g(json.loads(sys.argv[1]))))"


def get(**spec: object) -> tuple[int, str, str]:
    """Return (status, body, problem), as the agent's program finds them on its host."""
    argv = [sys.executable, "-B", "-c", ASK, json.dumps(spec)]
    done = subprocess.run(argv, cwd=FILES, capture_output=True, text=True, check=True, timeout=30)
    status, body, problem = json.loads(done.stdout)
    return status, body, problem


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://127.0.0.1:99999999/", "http://127.0.0.1:port/", "http://127.0.0.1:1/"]
)
def test_an_address_that_cannot_be_asked_is_a_problem_and_no_crash(url: str) -> None:
    status, body, problem = get(url=url)
    assert (status, body) == (0, "")
    assert problem.startswith(f"{url}: ")


@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN\r\n"])
def test_a_server_that_expects_a_proxy_header_gets_one_and_no_other_does(header: bytes) -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                while not (heard and heard[-1].endswith(b"\r\n\r\n")):
                    heard.append(b"".join([*heard[-1:], connection.recv(4096)]))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        assert get(url=url, proxy_header=bool(header)) == (200, "hi", "")
        thread.join(10)
    assert heard[-1].startswith(header + b"GET /x HTTP/1.1\r\n")
