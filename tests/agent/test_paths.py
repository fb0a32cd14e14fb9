"""Files, directories and links that are not as they should be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.plan import sha256
from engine.resource import Absent, Directory, File, Symlink
from tests.agent.driver import OnStage, failure


def test_drift_of_mode_and_owner_is_fixed_without_writing_the_content_again(on_stage: OnStage) -> None:
    agent, wanted = on_stage(), [File(path="/srv/x", content=b"x", mode="0640", group="adm")]
    agent.run(wanted)
    path = agent.stage.root / "srv/x"
    before = path.stat().st_ino
    path.chmod(0o666)
    agent.stage.run("chown", "1:1", "/srv/x")
    assert agent.run(wanted).changed == ["file:/srv/x"]
    info = path.stat()
    assert (oct(info.st_mode), info.st_uid, path.group(), info.st_ino) == ("0o100640", 0, "adm", before)


def test_a_file_that_another_program_changed_since_it_was_read_is_left(on_stage: OnStage) -> None:
    agent = on_stage()
    (agent.stage.root / "srv/map").write_text("theirs\n")
    ours = File(path="/srv/map", content=b"ours\n", only_if_sha256=sha256(b"read earlier\n"))
    assert "changed by another program" in failure(agent.run([ours]))[1]
    assert (agent.stage.root / "srv/map").read_text() == "theirs\n"
    assert agent.run([replace(ours, only_if_sha256=sha256(b"theirs\n"))]).changed == ["file:/srv/map"]
    assert (
        "changed by another program"
        in failure(agent.run([File(path="/srv/new", content=b"", only_if_sha256=sha256(b"x"))]))[1]
    )
    assert agent.run([File(path="/srv/new", content=b"", only_if_sha256="")]).ok


def test_of_a_file_of_others_only_what_changes_is_shown(on_stage: OnStage) -> None:
    agent, events = on_stage(), []
    theirs = b"oidc:\n  client_secret: theirs\nderp:\n  paths: []\n  more: theirs\n"
    agent.run([File(path="/srv/config.yaml", content=theirs)])
    ours = File(
        path="/srv/config.yaml", content=theirs.replace(b"[]", b"[/srv/map]"), only_if_sha256=sha256(theirs)
    )
    agent.run([ours], mode="check", on_event=events.append)
    [text] = [event["text"] for event in events if event["event"] == "diff"]
    assert text.splitlines()[2:] == ["@@ -4 +4 @@", "-  paths: []", "+  paths: [/srv/map]"]


@pytest.mark.parametrize("other", [File(path="/srv/d", content=b""), Symlink(path="/srv/d", target="x")])
def test_a_directory_is_never_removed_for_a_file_or_link(on_stage: OnStage, other: File | Symlink) -> None:
    agent = on_stage()
    (agent.stage.root / "srv/d").mkdir()
    (agent.stage.root / "srv/d/precious").write_text("")
    assert "/srv/d is a directory" in failure(agent.run([other]))[1]
    assert agent.run([Absent(path="/srv/d")]).changed == ["absent:/srv/d"]
    assert not (agent.stage.root / "srv/d").exists()


@pytest.mark.parametrize("target", ["/srv/theirs", "/srv/nothing"])
def test_a_link_in_the_place_of_a_directory_is_not_followed(on_stage: OnStage, target: str) -> None:
    agent = on_stage()
    theirs = agent.stage.root / "srv/theirs"
    theirs.mkdir(mode=0o700)
    before = theirs.stat()
    (agent.stage.root / "srv/d").symlink_to(target)
    what, why = failure(agent.run([Directory(path="/srv/d", mode="0777", group="adm")]))[1:]
    assert (what, why.startswith("it is not followed")) == ("/srv/d is a link", True)
    assert theirs.stat() == before
    assert not (agent.stage.root / "srv/nothing").exists()
