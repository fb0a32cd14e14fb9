"""The programs that hosts run as text.

The others are run where they are used (tests/fleet, tests/roles).
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.scripts import SCRIPTS, script
from relay.core.stun import pack_response, parse_request


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


KEY = f"nodekey:{'ab' * 32}"


def admission(url: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run("ask_admission", url, KEY).stdout)
    return found


@contextlib.contextmanager
def saying(answer: bytes | None) -> Iterator[str]:
    """Yield the address of a server that gives one answer; None: it hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                line, _ = server.accept()
                with line:
                    line.recv(65536)
                    line.sendall(answer or b"")

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def http(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nDate: Sun, 29 Nov 2026 09:00:00 GMT\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


# By the step that fails: the bodies of an answer with status 200, and other answers.
BODIES = {
    "": [
        b'{"Allow":false}', b'{"allow":true}', b'{"Allow":false} and more',
        b' {"Allow":false}{"Allow":true1}', b'{"Allow":null}', b"null",
    ],
    "answer": [b"<html>", b"[1]", b'{"Allow":"true"}', b'{"Allow":0}', b"[]", b"[" * 4000],
}  # fmt: skip
ANSWERS = {
    "status": [
        http("500 Internal Server Error", b""),
        http("302 Found", b""),
        http("307 Temporary Redirect\r\nLocation: mailto:x", b""),
        http("307 Temporary Redirect\r\nLocation: http://[x/", b""),
        http("307 Temporary Redirect\r\nLocation: http://x:99999/", b""),
    ],
    "connection": [b"SSH-2.0-x\r\n", None],
}


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        *((http("200 OK", body), step) for step, bodies in BODIES.items() for body in bodies),
        *((answer, step) for step, answers in ANSWERS.items() for answer in answers),
    ],
)
def test_the_admission_controllers_answer(answer: bytes | None, step: str) -> None:
    with saying(answer) as at:
        found = admission(f"http://{at}/verify")
    assert found["step"] == step
    assert found.get("allow", False) == (answer is not None and b"true}" in answer)
    assert isinstance(found["clock"], float)


def test_the_step_that_keeps_the_admission_controller_away_is_named() -> None:
    assert admission(f"http://127.0.0.1:{shut()}/verify")["step"] == "connection"
    assert admission("http://nowhere.invalid/verify")["step"] == "name"
    assert admission("http://nowhere..invalid/verify")["step"] == "name"
    with saying(b"HTTP/1.1 400 Bad Request\r\n\r\n") as at:
        assert admission(f"https://{at}/verify")["step"] == "TLS"


def test_an_admission_controller_that_hangs(listener: str) -> None:
    found = admission(f"http://127.0.0.1:{listener}/verify")
    assert found["step"] == "time"
    assert 4_000 < float(str(found["ms"])) < 9_000


def test_an_admission_controller_whose_answer_drips() -> None:
    """The relay waits for the whole answer no longer than that."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with contextlib.suppress(OSError):
                line, _ = server.accept()
                with line:
                    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
                    while not over.wait(0.5):
                        line.sendall(b" ")

        over = threading.Event()
        threading.Thread(target=drip, daemon=True).start()
        found = admission(f"http://127.0.0.1:{server.getsockname()[1]}/verify")
        over.set()
    assert found["step"] == "time"
    assert 4_000 < float(str(found["ms"])) < 9_000


STATUS = {
    "BackendState": "Running",
    "Self": {"KeyExpiry": "2100-01-01T00:00:00Z"},
    "Peer": {"a": {}, "b": {}},
}


@contextlib.contextmanager
def tailscaled(folder: Path, *answers: bytes) -> Iterator[str]:
    """Yield the socket of a tailscaled that gives these answers, one a connection."""
    place = str(folder / "tailscaled.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()

        def serve() -> None:
            for answer in answers:
                with contextlib.suppress(OSError):
                    line, _ = server.accept()
                    with line:
                        line.recv(65536)
                        line.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield place


def whois(place: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(run("ask_tailscaled", place, KEY).stdout)
    return found


@pytest.mark.parametrize(
    ("status", "answer", "step", "allow"),
    [
        (STATUS, http("200 OK", b"{}"), "", True),
        (STATUS, http("404 Not Found", b"no match"), "", False),
        (STATUS, http("400 Bad Request", b"invalid 'addr' parameter"), "age", None),
        (STATUS, http("500 Internal Server Error", b""), "localapi", None),
        (STATUS, b"SSH-2.0-x\r\n", "socket", None),
        (STATUS | {"BackendState": "NeedsLogin"}, b"", "login", None),
        ([], b"", "localapi", None),
        (STATUS | {"Self": {"KeyExpiry": "never"}}, b"", "localapi", None),
    ],
)
def test_the_answer_of_a_tailscaled(
    status: object, answer: bytes, step: str, allow: bool | None, tmp_path: Path
) -> None:
    with tailscaled(tmp_path, http("200 OK", json.dumps(status).encode()), answer) as place:
        found = whois(place)
    assert (found["step"], found.get("allow")) == (step, allow)
    if not step:
        assert found["peers"] == 2
        assert float(str(found["key_left_s"])) > 1e9


def test_a_tailscaled_that_does_not_run(tmp_path: Path) -> None:
    found = whois(str(tmp_path / "none.sock"))
    assert found["step"] == "socket" and "No such file" in str(found["detail"])


def test_the_least_time_of_all_nodes_of_a_region_is_reported_or_null() -> None:
    """Only an answer to the request itself counts, in tailscaled's form."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
    ):
        for one in (server, silent):
            one.bind(("127.0.0.1", 0))

        def serve() -> None:
            for number in range(3):
                data, source = server.recvfrom(2048)
                txid = parse_request(data)
                wrong = bytes(12) if number < 2 else txid
                server.sendto(pack_response(wrong, socket.inet_aton(source[0]), source[1]), source)

        threading.Thread(target=serve, daemon=True).start()
        here, quiet = (f"127.0.0.1,{one.getsockname()[1]}" for one in (server, silent))
        nameless = ("9,no.invalid,1", f"10,{'a' * 70}.invalid,1", "11,a,b,1")  # too long a label, a comma
        words = (f"7,{quiet}", f"7,{here}", f"8,{quiet}", *nameless)
        found = json.loads(run("stun_times", *words).stdout)
    assert isinstance(found["7"], float) and found["7"] < 1000
    assert [found[id] for id in ("8", "9", "10", "11")] == [None] * 4
