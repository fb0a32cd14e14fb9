"""What a host may say instead of an answer: too much, or nothing that makes sense. It is an error with words, and memory stays bounded."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine import session, transport
from engine.facts import Ask
from engine.login import Login
from engine.plan import compile_plan
from engine.resource import File
from engine.session import AgentCrashed, Session
from engine.transport import run_once
from inventory.errors import DerpfleetError
from inventory.model import Ssh
from tests.engine.conftest import login_to
from tests.support.sshd import Sshd

LOGIN = Login("hk1", Ssh(), address="stage", known_hosts=Path("/dev/null"), base=Path("/"))


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"event": kind, **fields}).encode() + b"\n"


HELLO = event("hello", z=packed(b"{}"))


class Said:
    """What `AgentChannel` is to a session, with lines that were said before."""

    def __init__(self, *lines: bytes) -> None:
        self._lines = [*lines, b""]

    def send(self, data: bytes) -> None:
        pass

    def read_line(self) -> bytes:
        return self._lines.pop(0)

    def last_words(self) -> str:
        return ""

    def close(self) -> None:
        pass


@pytest.fixture
def hear(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """`hear(*lines)`: a session whose agent says those lines."""

    def begin(*lines: bytes) -> Session:
        monkeypatch.setattr(session, "AgentChannel", lambda _: Said(*lines))
        return Session(LOGIN, ask=Ask(), run_id="x", on_event=lambda _: None)

    return begin


@pytest.mark.parametrize(
    "line",
    [
        event("hello"),
        event("hello", z="no base64!"),
        event("hello", z=base64.b64encode(b"not packed").decode()),
        event("hello", z=packed(b"{not json")),
        event("hello", z=packed(b"[]")),
        event("hello", z=packed(b'{"listening": [{"port": 1}]}')),
        event("hello", z=packed(b'{"files": 1}')),
        event("hello", z=packed(b"{}")[:8]),
        event("locked"),
        event("locked", who="x", since=1e300),
        event("crash"),
        b"[" * 100_000 + b"\n",
        b"7\n",
    ],
)
def test_an_answer_that_makes_no_sense_is_a_crash(hear: Callable[..., Session], line: bytes) -> None:
    with pytest.raises(AgentCrashed) as error:
        hear(line)
    assert error.value.host == "hk1"
    assert error.value.why


@pytest.mark.parametrize(
    "lines",
    [
        (event("want"),),
        (event("want", blobs=["0" * 64]),),
        (event("want", blobs=[]), event("done")),
        (event("want", blobs=[]), event("done", counts={"ok": 1})),
    ],
)
def test_an_end_that_makes_no_sense_is_a_crash(hear: Callable[..., Session], lines: tuple[bytes, ...]) -> None:
    with pytest.raises(AgentCrashed, match="makes no sense"):
        hear(HELLO, *lines).apply(compile_plan([File(path="/etc/x", content=b"x")], mode="apply"))


def test_facts_that_unpack_to_too_much_are_not_unpacked(hear: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "FACTS_MAX", 100_000)
    assert hear(event("hello", z=packed(b'{"kernel": "%s"}' % (b"x" * 99_000)))).facts.kernel == "x" * 99_000
    with pytest.raises(AgentCrashed, match="makes no sense") as error:
        hear(event("hello", z=packed(b'{"kernel": "%s"}' % (b"x" * 100_000))))
    assert error.value.why == "ValueError: facts of more than 100000 bytes, or cut ones"


def test_a_line_without_an_end_is_not_read_to_its_end(new_sshd: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (session, transport):
        monkeypatch.setattr(module, "LINE_MAX", 1_000_000)
    server = new_sshd(files={"/usr/bin/talker": "#!/bin/sh\necho READY 1\nexec head -c 100000000 /dev/zero\n"})
    with pytest.raises(AgentCrashed, match="makes no sense") as error:
        Session(login_to(server, python="/usr/bin/talker"), ask=Ask(), run_id="x", on_event=lambda _: None)
    assert error.value.why == "a line of more than 1000000 bytes"


def test_a_command_without_an_end_is_not_read_to_its_end(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "OUTPUT_MAX", 1_000_000)
    assert len(run_once(login_to(sshd), ["head", "-c", "1000000", "/dev/zero"])[1]) == 1_000_000
    with pytest.raises(DerpfleetError, match="does not end"):
        run_once(login_to(sshd), ["head", "-c", "100000000", "/dev/zero"])
