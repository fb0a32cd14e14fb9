"""Secrets: they are in no event, log or backup for longer than the run needs them."""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from engine import run
from engine.plan import sha256
from engine.resource import Absent, File, Tree
from engine.session import Session
from inventory.secrets import Secret
from tests.agent.driver import DIE_AFTER_RESULT, Agent, OnStage, failure
from tests.agent.plans import FOLDER, UNIT, environment, service

SWAP_FOR_A_LINK = """
import os
real = os.lstat
def lstat_and_swap(path):
    info = real(path)
    if path == "/srv/ours" and os.path.lexists("/var/lib/derpfleet/journal"):
        os.unlink(path)
        os.symlink("/srv/theirs", path)
    return info
from agent import journal
class Os:
    lstat = staticmethod(lstat_and_swap)
    def __getattr__(self, name):
        return getattr(os, name)
journal.os = Os()
"""


def contents(agent: Agent) -> list[bytes]:
    """Return the contents that the agent has kept, which root alone may read."""
    kept = agent.stage.root / "var/lib/derpfleet"
    files = [*(kept / "incoming").iterdir(), *(kept / "backups").iterdir()]
    assert {oct(path.stat().st_mode) for path in files} <= {"0o100600"}
    assert oct(kept.stat().st_mode) == "0o40700"
    return [path.read_bytes() for path in files]


def key(word: str) -> File:
    return File(path="/etc/relay/key", content=Secret(word), mode="0600", secret=True)


def test_a_check_is_sent_what_it_shows_and_neither_archives_nor_secrets(
    on_stage: OnStage, tmp_path: Path
) -> None:
    agent, archive, sent = on_stage(), tmp_path / "release.tar", []
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("x"), BytesIO())
    key = File(path="/srv/key", content=Secret("s3cret"), mode="0600", secret=True)
    wanted = [File(path="/srv/x", content=b"shown\n"), key, Tree(path="/srv/tree", archive=archive)]
    events: list[Any] = []

    class Watched(Session):
        def _send_blob(self, digest: str, content: bytes | Path, start: int) -> None:
            sent.append(digest)
            super()._send_blob(digest, content, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Session", Watched)
        assert agent.run(wanted, mode="check", on_event=events.append).counts["changed"] == 3
        assert sent == [sha256(b"shown\n")]
        assert "+shown" in next(
            event["text"] for event in events if event["event"] == "diff" and event["id"] == "file:/srv/x"
        )
        assert agent.run(wanted).counts["changed"] == 3
    assert len(sent) == 4


def test_a_secret_is_in_no_event_and_no_log_and_its_backup_is_private(on_stage: OnStage) -> None:
    agent, events = on_stage(), []
    for word in ("first-secret", "second-secret"):
        for mode in ("check", "apply"):
            outcome = agent.run(
                [File(path="/srv/key", content=Secret(word), mode="0600", secret=True)],
                mode=mode,
                on_event=events.append,
            )
            assert outcome.ok
            assert "-secret" not in repr(outcome)
    assert [event["text"] for event in events if event["event"] == "diff"] == ["(secret content)\n"] * 4
    assert "-secret" not in str(events) + "".join(path.read_text() for path in agent.runs.rglob("*.jsonl"))
    kept = agent.stage.root / "var/lib/derpfleet"
    assert "-secret" not in "".join(path.read_text() for path in (kept / "journal").iterdir())
    assert contents(agent) == []


def test_a_failed_run_keeps_no_secret_and_puts_the_former_one_back(on_stage: OnStage) -> None:
    agent, restarted = on_stage(), service(restart_on=("file:/etc/relay/key", "file:/etc/relay/relay.env"))
    assert agent.run([FOLDER, key("former"), environment(b"good\n"), UNIT, restarted]).ok
    outcome = agent.run([FOLDER, key("latter"), environment(b"broken\n"), UNIT, restarted])
    assert "put back: file:/etc/relay/key, file:/etc/relay/relay.env" in failure(outcome)[2]
    assert (agent.stage.root / "etc/relay/key").read_text() == "former\n"
    left = contents(agent)
    assert b"broken\n" in left  # the next run need not be sent it again
    assert not {b"former\n", b"latter\n"} & set(left)


def test_the_secrets_of_a_killed_run_go_with_the_next(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run([FOLDER, key("former")]).ok
    assert agent.dies([FOLDER, key("latter"), environment(b"new\n")], DIE_AFTER_RESULT % 2)
    assert {b"former\n", b"latter\n"} <= set(contents(agent))
    assert agent.run([FOLDER, key("last")]).ok
    assert contents(agent) == []


def test_the_secrets_of_a_killed_run_go_with_a_run_that_has_none(on_stage: OnStage) -> None:
    """The certificate may come from elsewhere by then, or --only leaves the key out."""
    agent = on_stage()
    assert agent.run([FOLDER, key("former")]).ok
    assert agent.dies([FOLDER, key("latter"), environment(b"new\n")], DIE_AFTER_RESULT % 2)
    assert agent.run([FOLDER]).ok
    assert contents(agent) == []


def test_a_private_file_that_is_removed_is_not_kept(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run([FOLDER, key("former")]).ok
    assert agent.run([FOLDER, Absent(path="/etc/relay/key")]).ok
    assert contents(agent) == []


def test_a_link_in_place_of_a_file_is_not_followed_to_the_backups(on_stage: OnStage) -> None:
    """A service that owns its folder swaps the file for a link just after it was looked at."""
    agent = on_stage()
    agent.extra = SWAP_FOR_A_LINK
    (agent.stage.root / "srv/ours").write_text("now")
    (agent.stage.root / "srv/theirs").write_text("of root alone")
    id_, what, _ = failure(agent.run([File(path="/srv/ours", content=b"then")]))
    assert (id_, what) == ("file:/srv/ours", "/srv/ours: Too many levels of symbolic links")
    assert b"of root alone" not in contents(agent)
