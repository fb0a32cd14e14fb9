"""Messages that a controller of another version, or a broken one, sends to the agent.

Each ends the conversation: an agent that waited on would keep the host's lock.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FILES = str(Path(__file__).parent.parent.parent / "files")
DIGEST = hashlib.sha256(b"abc").hexdigest()


@pytest.fixture(scope="module")
def wire() -> Iterator[Any]:
    """Return the agent's module, as the agent imports it."""
    sys.path.insert(0, FILES)
    try:
        from agent import wire as module  # type: ignore[import-not-found]  # found on the path of files/

        yield module
    finally:
        sys.path.remove(FILES)
        for name in [name for name in sys.modules if name == "agent" or name.startswith("agent.")]:
            del sys.modules[name]


def heard(wire: Any, data: bytes, folder: Path) -> Exception:
    """Return how a conversation ends in which the controller sends this and hangs up."""
    its = wire.Wire(io.BytesIO(data), io.BytesIO())
    its.incoming = str(folder)
    its.listen()
    while True:
        try:
            its.next(10)
        except (wire.ControllerGone, wire.Refused) as end:
            return end


@pytest.mark.parametrize(
    "data",
    [
        b"7\n",
        b"[]\n",
        b'"stop"\n',
        b"null\n",
        b"{\n",
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"blob": "%s"}\n' % DIGEST.encode(),
        b'{"blob": "%s", "size": "3"}\nabc' % DIGEST.encode(),
        b'{"blob": "%s", "size": -1}\nabc' % DIGEST.encode(),
        b'{"blob": "%s", "size": true}\nabc' % DIGEST.encode(),
        b'{"blob": "../x", "size": 3}\nabc',
        b'{"blob": 7, "size": 3}\nabc',
        b'{"blob": "%s", "size": 3}\nxyz' % DIGEST.encode(),
        b'{"blob": "%s", "size": 2, "from": 1}\nbc' % DIGEST.encode(),
        b'{"blob": "%s", "size": 2, "from": -1}\nbc' % DIGEST.encode(),
        b'{"blob": "%s", "size": 2, "from": "1"}\nbc' % DIGEST.encode(),
    ],
)
def test_a_message_that_cannot_be_used_is_refused(wire: Any, data: bytes, tmp_path: Path) -> None:
    end = heard(wire, data, tmp_path)
    assert isinstance(end, wire.Refused), end
    assert list(tmp_path.iterdir()) == []


def test_a_content_is_kept(wire: Any, tmp_path: Path) -> None:
    end = heard(wire, b'{"blob": "%s", "size": 3}\nabc' % DIGEST.encode(), tmp_path)
    assert isinstance(end, wire.ControllerGone)
    assert [path.name for path in tmp_path.iterdir()] == [DIGEST]


def test_the_beginning_of_a_content_is_kept_and_continued(wire: Any, tmp_path: Path) -> None:
    part = tmp_path / f"{DIGEST}.part"
    end = heard(wire, b'{"blob": "%s", "size": 3}\nab' % DIGEST.encode(), tmp_path)
    assert isinstance(end, wire.ControllerGone)
    assert (part.read_bytes(), part.stat().st_mode & 0o777) == (b"ab", 0o600)
    heard(wire, b'{"blob": "%s", "size": 1, "from": 2}\nc' % DIGEST.encode(), tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(DIGEST, b"abc")]


def test_a_beginning_that_the_controller_does_not_know_is_replaced(wire: Any, tmp_path: Path) -> None:
    (tmp_path / f"{DIGEST}.part").write_bytes(b"something else")
    heard(wire, b'{"blob": "%s", "size": 3, "from": 0}\nabc' % DIGEST.encode(), tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(DIGEST, b"abc")]


def test_a_content_does_not_go_on_behind_its_beginning(wire: Any, tmp_path: Path) -> None:
    """A hole takes no room, so it may be of any length, and each run would read all of it."""
    (tmp_path / f"{DIGEST}.part").write_bytes(b"a")
    end = heard(wire, b'{"blob": "%s", "size": 9, "from": 2}\nc' % DIGEST.encode(), tmp_path)
    assert isinstance(end, wire.Refused) and end.why == "it goes on at byte 2, and 1 are here"
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b'{"blob":', b'"size":', b"3", b"}", b"null", b'{"stop":1}\n', b'{"z":1}\n']),
), max_size=12))
def test_any_bytes_end_the_conversation(wire: Any, tmp_path_factory: Any, pieces: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("incoming")
    heard(wire, b"".join(pieces), folder)
    assert list(folder.glob("*.part")) == []


def test_silence_has_a_deadline(wire: Any) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin:
        its = wire.Wire(stdin, io.BytesIO())
        its.listen()
        with pytest.raises(wire.ControllerGone):
            its.next(0.05)
        os.close(writing)
        with pytest.raises(wire.ControllerGone):
            its.next(10)


class Packets(io.BytesIO):
    """Standard output, and the events of each packet that has left."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[list[str]] = []
        self._begin = 0

    def flush(self) -> None:
        lines = self.getvalue()[self._begin :].splitlines()
        self._begin = len(self.getvalue())
        self.left.append([json.loads(line)["event"] for line in lines])


def test_events_that_can_wait_leave_with_the_next_one(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SOON_S", 60)
    out = Packets()
    its = wire.Wire(io.BytesIO(), out)
    its.send("want")
    for _ in range(3):
        its.send("result", soon=True)
    assert out.left == [["want"]]
    its.send("diff")
    assert out.left == [["want"], ["result", "result", "result", "diff"]]
    monkeypatch.setattr(wire, "SOON_S", 0)
    its.send("result", soon=True)
    assert out.left[2:] == [["result"]]


def test_a_check_that_finds_nothing_is_one_packet(wire: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet costs the controller more than the result in it: two hundred hosts send 65 each."""
    from agent.converge import converge  # type: ignore[import-not-found]  # as above

    monkeypatch.setattr(wire, "SOON_S", 60)
    out = Packets()
    alike = SimpleNamespace(id="x", wanted=dict, present=dict, was_changed_earlier=lambda: False)
    host = SimpleNamespace(
        wire=wire.Wire(io.BytesIO(), out),
        resources=[alike] * 65,
        stopped="",
        journal=SimpleNamespace(file=None),
    )
    host.wire.send("want")
    assert converge(host, "check")["ok"] == 65
    host.wire.send("done")
    assert out.left == [["want"], [*["result"] * 65, "done"]]
