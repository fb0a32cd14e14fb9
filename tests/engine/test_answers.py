"""Bad answers of a host: too long, or malformed.

Each is an error with a reason, and memory stays bounded.
"""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from engine import messages, session, transport
from engine.crash import AgentCrashed
from engine.facts import Ask
from engine.login import Login, Unreachable
from engine.plan import compile_plan
from engine.report import Report
from engine.resource import File
from engine.run import converge
from engine.session import Session
from engine.transport import run_once
from inventory.errors import DerpfleetError
from inventory.model import Ssh
from tests.engine.conftest import login_to
from tests.support.facts import DEBIAN_12
from tests.support.jobs import fixed
from tests.support.sshd import Sshd

LOGIN = Login("hk1", Ssh(), address="stage", known_hosts=Path("/dev/null"), base=Path("/"))


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"event": kind, "seq": 1, "t": 0.1, **fields}).encode() + b"\n"


def facts(**fields: Any) -> str:
    """Return a host's facts as the agent packs them, with some fields replaced."""
    newest = {"generation": 0, "contents": []}
    return packed(json.dumps(asdict(DEBIAN_12) | {"confirmed": newest} | fields).encode())


HELLO = event("hello", v=1, z=facts())


class Said:
    """In place of `AgentChannel`: a channel that has received these lines."""

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
    """Return `hear(*lines)`, which makes a session whose agent sends these lines.

    The next sessions get them as well.
    """

    def begin(*lines: bytes) -> Session:
        monkeypatch.setattr(session, "AgentChannel", lambda _: Said(*lines))
        return Session(LOGIN, ask=Ask(), run_id="x", on_event=lambda _: None)

    return begin


REFUSED = event(
    "refused", what="a content cannot be kept", where="/var", why="No space left on device", next=""
)


@pytest.mark.parametrize(
    ("cause", "what"),
    [(OSError("closed"), "a content cannot be kept"), (TimeoutError(), "the connection was lost")],
)
def test_last_words_of_an_agent_that_hung_up_are_read_but_not_awaited_on_a_lost_connection(
    hear: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, cause: OSError, what: str
) -> None:
    def fail(_: Session, digest: str, content: object, start: int) -> None:
        raise Unreachable("the connection was lost") from cause

    monkeypatch.setattr(Session, "_send_blob", fail)
    plan = compile_plan([File(path="/srv/x", content=b"x")], mode="apply")
    with pytest.raises(DerpfleetError) as error:
        hear(HELLO, event("want", blobs=[*plan.blobs], partial={}), REFUSED).apply(plan)
    assert error.value.what == what


@pytest.mark.parametrize(
    "line",
    [
        event("hello"),
        event("hello", v=1, z="no base64!"),
        event("hello", v=1, z=base64.b64encode(b"not packed").decode()),
        event("hello", v=1, z=packed(b"{not json")),
        event("hello", v=1, z=packed(b"[]")),
        event("hello", v=1, z=facts(listening=[{"port": 1}])),
        event("hello", v=1, z=facts(files=1)),
        event("hello", v=1, z=facts(python="x")),
        event("hello", v=1, z=facts(python=[3, 11, True])),
        event("hello", v=1, z=facts(now=math.nan)),
        event("hello", v=1, z=facts(now=math.inf)),
        event("hello", v=1, z=facts(now=10**400)),
        event("hello", v=1, z=facts(arch="x86_64; reboot")),
        event("hello", v=1, z=facts(kernel="x" * 100_000)),
        event("hello", v=1, z=facts(ssh_ports=[70_000])),
        event("hello", v=1, z=facts(tools={"nginx": 1})),
        event("hello", v=1, z=facts(files={"/x": {"content": None}})),
        event("hello", v=1, z=facts(confirmed=1)),
        event("hello", v=1, z=facts(confirmed={"generation": -1, "contents": []})),
        event("hello", v=1, z=facts(confirmed={"generation": 1, "contents": [1]})),
        event("hello", v=1, z=facts()[:8]),
        event("hello", v=1, z=packed(b"{}")),
        event("locked"),
        event("locked", who="x", since=1e300, in_force=""),
        event("crash"),
        event("refused", what="x"),
        b"[" * 100_000 + b"\n",
        b"7\n",
    ],
)
def test_a_malformed_answer_is_a_crash(hear: Callable[..., Session], line: bytes) -> None:
    with pytest.raises(AgentCrashed) as error:
        hear(line)
    assert error.value.host == "hk1"
    assert error.value.why


WANT = event("want", blobs=[], partial={})
COUNTS = {"ok": 0, "changed": 1, "failed": 0, "skipped": 0}
ID = "file:/etc/x"


@pytest.mark.parametrize(
    "line",
    [
        event("want"),
        event("want", blobs=7, partial={}),
        event("want", blobs=[]),
        event("want", blobs=[], partial={"0" * 64: [-1, "0" * 64]}),
        event("want", blobs=[], partial={"0" * 64: ["1", "0" * 64]}),
        event("want", blobs=[], partial={"0" * 64: [1]}),
        event("done", counts=COUNTS),
        event("done", counts={"ok": 1}, stopped=""),
        event("done", counts={**COUNTS, "ok": "1"}, stopped=""),
        event("done", counts=COUNTS, stopped=None),
        event("result", id=ID),
        event("result", id=ID, status="well", ms=1),
        event("result", id=ID, status=[], ms=1),
        event("result", id=ID, status="ok", ms=10**400),
        event("result", id=ID, status="failed", ms=1),
        event("result", id=ID, status="failed", ms=1, what="it is", why={}),
        event("result", id="file:/etc/other", status="ok", ms=1),
        event("result", id=7, status="ok", ms=1),
        event("diff", id=ID, keys=[], text=""),
        event("diff", id=ID, keys={"mode": "0644"}, text=""),
        event("diff", id=ID, keys={"mode": ["0644", {}]}, text=""),
        event("diff", id=ID, keys={}, text=None),
        event("diff", keys={}, text=""),
        event("waiting", id=ID),
        event("heartbeat"),
        event("confirm", id=ID, within_s=1),
        event("plan", mode="check", resources=1),
        event("sending", sent=1, size=2),
        event("output", text=7),
        event("unheard of"),
        b'{"event": ["done"], "seq": 1, "t": 0}\n',
        b'["done"]\n',
    ],
)
def test_an_unknown_event_is_a_crash_and_is_not_passed_on(
    hear: Callable[..., Session], line: bytes, tmp_path: Path
) -> None:
    heard = io.StringIO()
    report = Report(console=Console(file=heard), diffs=True)
    wanted = [File(path="/etc/x", content=b"x")]
    with pytest.raises(AgentCrashed, match="makes no sense") as error:
        hear(HELLO, WANT, line)
        converge(LOGIN, fixed(wanted), runs=tmp_path, on_event=partial(report.agent_event, "hk1"))
    assert error.value.host == "hk1"
    assert heard.getvalue() == ""


def test_a_content_that_the_plan_has_not_is_a_crash(hear: Callable[..., Session]) -> None:
    with pytest.raises(AgentCrashed, match="makes no sense"):
        hear(HELLO, event("want", blobs=["0" * 64], partial={})).apply(
            compile_plan([File(path="/etc/x", content=b"x")], mode="apply")
        )


@pytest.mark.parametrize(
    "line", [event("done", counts=COUNTS, stopped=""), event("result", id=ID, status="changed", ms=1), WANT]
)
def test_work_before_there_is_a_plan_is_a_crash(hear: Callable[..., Session], line: bytes) -> None:
    with pytest.raises(AgentCrashed, match="makes no sense"):
        hear(line)


def test_fields_outside_the_contract_are_dropped(
    hear: Callable[..., Session], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(json_lines=True)
    wanted = [File(path="/etc/x", content=b"x")]
    more = {"host": "sg1", "at": "never", "mode": "check"}
    hear(
        HELLO,
        WANT,
        event("result", id=ID, status="changed", ms=1, **more),
        event("done", counts=COUNTS, stopped=""),
    )
    converge(LOGIN, fixed(wanted), runs=tmp_path, on_event=partial(report.agent_event, "hk1"))
    result = next(
        one for one in map(json.loads, capsys.readouterr().out.splitlines()) if one["event"] == "result"
    )
    assert result == {
        "event": "result",
        "host": "hk1",
        "id": ID,
        "status": "changed",
        "ms": 1,
        "seq": 1,
        "t": 0.1,
    }


def test_a_command_without_an_output_is_a_crash(hear: Callable[..., Session]) -> None:
    """No reader has to know that a host may leave out what it was asked."""
    ask, nothing = Ask(commands={"nginx": ("nginx", "-T")}), {"tools": {}, "files": {}, "commands": {}}
    said = hear(HELLO, event("facts", z=packed(json.dumps(nothing).encode())))
    with pytest.raises(AgentCrashed, match="makes no sense") as error:
        said.ask(ask)
    assert "no output of nginx" in error.value.why
    with pytest.raises(AgentCrashed, match="makes no sense"):
        Session(LOGIN, ask=ask, run_id="x", on_event=lambda _: None)


def test_facts_that_unpack_to_too_much_are_not_unpacked(
    hear: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "FACTS_MAX", 100_000)

    def printed(size: int) -> bytes:
        output = {"status": 0, "stdout": "x" * size, "stderr": ""}
        return event("hello", v=1, z=facts(commands={"nginx": output}))

    assert len(hear(printed(99_000)).facts.commands["nginx"].stdout) == 99_000
    with pytest.raises(AgentCrashed, match="makes no sense") as error:
        hear(printed(100_000))
    assert error.value.why == "ValueError: the facts are longer than 100000 bytes, or incomplete"


def test_a_line_without_an_end_is_not_read_to_its_end(
    new_sshd: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (session, transport):
        monkeypatch.setattr(module, "LINE_MAX", 1_000_000)
    server = new_sshd(
        files={"/usr/bin/talker": "#!/bin/sh\necho READY 1\nexec head -c 100000000 /dev/zero\n"}
    )
    with pytest.raises(AgentCrashed, match="makes no sense") as error:
        Session(login_to(server, python="/usr/bin/talker"), ask=Ask(), run_id="x", on_event=lambda _: None)
    assert error.value.why == "a line of more than 1000000 bytes"


def test_a_command_without_an_end_is_not_read_to_its_end(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "OUTPUT_MAX", 1_000_000)
    assert len(run_once(login_to(sshd), ["head", "-c", "1000000", "/dev/zero"])[1]) == 1_000_000
    with pytest.raises(DerpfleetError, match="is too long"):
        run_once(login_to(sshd), ["head", "-c", "100000000", "/dev/zero"])


@pytest.mark.parametrize(("refused", "within_s", "tries"), [(0, 30, 1), (2, 30, 3), (99, 3, 3), (99, 0, 1)])
def test_a_firewall_is_confirmed_until_its_time_is_over(
    hear: Callable[..., Session], monkeypatch: pytest.MonkeyPatch, refused: int, within_s: int, tries: int
) -> None:
    """Refuse the first connections, as MaxStartups does."""
    now, asked = [0.0], list[str]()

    def connect(_: Login, argv: list[str]) -> tuple[int, str]:
        asked.append(argv[-1])
        if len(asked) <= refused:
            raise Unreachable("no SSH server answers", why="Exceeded MaxStartups")
        return 0, ""

    monkeypatch.setattr(session, "run_once", connect)
    monkeypatch.setattr(session.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(session.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    confirm = event("confirm", id=ID, path="/run/token", within_s=within_s)
    done = event("done", counts=COUNTS, stopped="")
    hear(HELLO, WANT, confirm, done).apply(
        compile_plan([File(path="/etc/x", content=b"x")], mode="apply")
    )
    assert asked == ["/run/token"] * tries
