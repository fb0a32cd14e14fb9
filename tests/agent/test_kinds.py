"""Single kinds on hosts that are not as they should be, with the newest Python at hand."""

from __future__ import annotations

import tarfile
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from engine import run
from engine.events import Event
from engine.health import Exec, Watch
from engine.plan import sha256
from engine.resource import (
    Absent,
    Command,
    Directory,
    File,
    Group,
    NftTable,
    Package,
    Service,
    Symlink,
    Tree,
    User,
)
from engine.session import Session
from inventory.secrets import Secret
from tests.agent.driver import DIE_AFTER_RESULT, Agent, OnStage, failure
from tests.agent.plans import RULES

STEPPED_CLOCK = """
import itertools, time
real, steps = time.time, itertools.count(0, %d)
time.time = lambda: real() + next(steps)
"""
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
UNIT = File(path="/etc/systemd/system/relay.service", content=b"[Service]\nExecStart=/bin/true\n")
FOLDER = Directory(path="/etc/relay")


def environment(content: bytes) -> File:
    return File(path="/etc/relay/relay.env", content=content)


def service(**more: Any) -> Service:
    return Service(
        **(
            {"unit": "relay.service", "restart_on": (UNIT.id, "file:/etc/relay/relay.env"), "timeout_s": 1}
            | more
        )
    )


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


def contents(agent: Agent) -> list[bytes]:
    """Return the contents that the agent has kept, which root alone may read."""
    kept = agent.stage.root / "var/lib/derpfleet"
    files = [*(kept / "incoming").iterdir(), *(kept / "backups").iterdir()]
    assert {oct(path.stat().st_mode) for path in files} <= {"0o100600"}
    assert oct(kept.stat().st_mode) == "0o40700"
    return [path.read_bytes() for path in files]


def key(word: str) -> File:
    return File(path="/etc/relay/key", content=Secret(word), mode="0600", secret=True)


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


def test_what_a_failed_restart_came_from_is_put_back(on_stage: OnStage) -> None:
    agent, good = on_stage(), [FOLDER, environment(b"good\n"), UNIT, service()]
    assert agent.run(good).ok
    agent.forget()

    id_, what, why = failure(agent.run([FOLDER, environment(b"broken\n"), UNIT, service()]))

    assert (id_, what) == ("service:relay.service", "relay.service did not restart")
    assert "the configuration is broken" in why
    assert why.endswith("put back: file:/etc/relay/relay.env")
    assert (agent.stage.root / "etc/relay/relay.env").read_text() == "good\n"
    assert (
        agent.stage.run(
            "/var/fake/bin/systemctl", "show", "--property", "x", "relay.service"
        ).stdout.splitlines()[1]
        == "ActiveState=active"
    )
    assert agent.run(good).counts["ok"] == len(good)
    assert agent.run([FOLDER, environment(b"better\n"), UNIT, service()]).changed == [
        "file:/etc/relay/relay.env",
        "service:relay.service",
    ]


def test_another_site_that_is_still_down_after_all_was_put_back_is_reported(on_stage: OnStage) -> None:
    agent = on_stage()
    # With --pid, nsenter forks, and the kill misses the server.
    enter = [word for word in agent.stage.enter if word != "--pid"]
    watched = service(watch=(Watch(url="http://shop.example.net:8089/", connect="127.0.0.1:8089"),))
    with Popen(
        [*enter, "/usr/bin/python3", "-u", "-m", "http.server", "8089"], stdout=PIPE, stderr=PIPE
    ) as site:
        assert site.stdout and b"Serving" in site.stdout.readline()

        def switch_off(event: dict[str, Any]) -> None:
            if event["event"] == "result":
                site.kill()
                site.wait()

        why = failure(agent.run([FOLDER, UNIT, environment(b"SETTING=one\n"), watched], on_event=switch_off))[
            2
        ]
    assert "another site stopped answering as before: http://shop.example.net:8089/ gave 200, now" in why
    assert "put back: " in why
    assert "and that did not help: another site" in why


def test_a_service_that_starts_but_is_not_healthy_has_failed(on_stage: OnStage) -> None:
    agent = on_stage()
    unhealthy = service(healthy=(Exec(argv=("sh", "-c", "echo no answer >&2; exit 3")),))
    what, why = failure(agent.run([FOLDER, environment(b"x\n"), UNIT, unhealthy]))[1:]
    assert what == "service:relay.service did not become healthy within 1 s"
    assert why.startswith("sh -c echo no answer >&2; exit 3: status 3: no answer")


def test_two_changes_are_one_restart_and_a_reload_is_no_restart(on_stage: OnStage) -> None:
    agent = on_stage()
    units = {"restart_on": (UNIT.id,), "reload_on": ("file:/etc/relay/relay.env",)}
    assert agent.run([FOLDER, environment(b"1\n"), UNIT, service(**units)]).ok
    agent.forget()
    changed = replace(UNIT, content=b"[Service]\nExecStart=/bin/false\n")
    agent.run([FOLDER, environment(b"2\n"), changed, service(**units)])
    assert agent.log() == ["systemctl daemon-reload ", "systemctl restart relay.service"]
    agent.forget()
    agent.run([FOLDER, environment(b"3\n"), changed, service(**units)])
    assert agent.log() == ["systemctl reload relay.service"]
    agent.forget()
    agent.run([FOLDER, environment(b"3\n"), changed, service(enabled=False, running=False)])
    assert agent.log() == ["systemctl disable relay.service", "systemctl stop relay.service"]


def test_what_only_leaves_out_is_owed_its_restart(on_stage: OnStage) -> None:
    agent, changed = on_stage(), environment(b"two\n")
    copy = Command(title="copy", argv=("cp", "/etc/relay/relay.env", "/srv/copy"), on_change=(changed.id,))
    assert agent.run([FOLDER, environment(b"one\n"), UNIT, copy, service()]).ok
    wanted = [FOLDER, changed, UNIT, copy, service()]
    agent.forget()
    assert agent.run(wanted, only=[changed.id]).changed == [changed.id]
    assert agent.log() == []
    assert agent.run(wanted, mode="check").changed == [copy.id, service().id]
    assert agent.run(wanted).changed == [copy.id, service().id]
    assert agent.log() == ["systemctl restart relay.service"]
    assert (agent.stage.root / "srv/copy").read_text() == "two\n"
    assert agent.run(wanted).counts["ok"] == len(wanted)


def test_missing_packages_are_one_call_and_each_counts_as_changed(on_stage: OnStage) -> None:
    agent = on_stage()
    wanted = [Package(package="one"), Package(package="two")]
    assert agent.run(wanted).changed == ["package:one", "package:two"]
    calls = [line.split() for line in agent.log() if " install " in line]
    assert [call[-2:] for call in calls] == [["one", "two"]]
    (agent.stage.root / "var/fake/packages/two").unlink()
    assert agent.run(wanted).changed == ["package:two"]


def test_a_held_package_lock_is_waited_for_and_its_holder_named(on_stage: OnStage) -> None:
    agent, events = on_stage(), []
    hold = (
        "import fcntl,sys;f=open('/var/lib/dpkg/lock-frontend','w');fcntl.lockf(f,fcntl.LOCK_EX);"
        "print('held',flush=True);sys.stdin.read()"
    )
    with Popen([*agent.stage.enter, "/usr/bin/python3", "-c", hold], stdin=PIPE, stdout=PIPE) as holder:
        assert holder.stdout and holder.stdin
        assert holder.stdout.readline() == b"held\n"

        def release(event: Event) -> None:
            if event["event"] == "waiting":
                events.append(event)
                holder.stdin.close()

        assert agent.run([Package(package="one")], on_event=release).ok
    (waiting,) = events
    assert "held by python3 (pid " in waiting["reason"]


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set_while_we_wait_makes_no_wait_longer_or_shorter(
    on_stage: OnStage, step_s: int
) -> None:
    """Time sync steps the clock, and the first deploy starts it."""
    agent, events = on_stage(), []
    late = Exec(argv=("sh", "-c", "test -e /srv/asked || { touch /srv/asked; exit 1; }"))
    wanted = [
        Package(package="nginx"), NftTable(table="relay", path="/etc/relay.nft", rules=RULES),
        FOLDER, environment(b"x\n"), UNIT, service(healthy=(late,), timeout_s=20),
    ]  # fmt: skip
    agent.extra = STEPPED_CLOCK % step_s
    outcome = agent.run(wanted, on_event=events.append)
    assert (outcome.failures, outcome.counts["changed"]) == ([], len(wanted))
    assert all(0 <= event["ms"] < 60_000 for event in events if event["event"] == "result")


def test_a_user_gets_its_group_and_home_and_keeps_what_it_has(on_stage: OnStage) -> None:
    agent = on_stage()
    agent.stage.run("useradd", "--groups", "adm", "relay")
    wanted = [Group(group="derp"), User(user="relay", group="derp", home="/srv")]
    assert agent.run(wanted).changed == ["group:derp", "user:relay"]
    assert agent.stage.run("id", "-Gn", "relay").stdout.split() == ["derp", "adm"]
    assert agent.run(wanted).counts["ok"] == 2


def test_a_failed_command_is_quoted_and_what_comes_after_is_not_reached(on_stage: OnStage) -> None:
    agent, events = on_stage(), []
    broken = Command(title="broken", argv=("sh", "-c", "echo out of luck >&2; exit 4"), creates="/srv/never")
    id_, what, why = failure(agent.run([broken, FOLDER], on_event=events.append))
    assert (id_, what, why) == (
        "command:broken",
        "sh -c echo out of luck >&2; exit 4 ended with status 4",
        "out of luck",
    )
    assert [event.get("reason") for event in events if event.get("id") == FOLDER.id] == [
        "not reached: command:broken failed"
    ]
    assert not (agent.stage.root / "etc/relay").exists()


def test_a_failed_program_is_not_quoted_line_by_line(on_stage: OnStage) -> None:
    program = ("python3", "-I", "-c", "import sys\n\nsys.exit('out of luck')\n")
    agent, broken = on_stage(), Command(title="broken", argv=program, creates="/srv/never")
    assert failure(agent.run([broken]))[1:] == (
        "python3 -I -c (program) ended with status 1",
        "out of luck",
    )


def test_a_command_that_takes_too_long_is_ended(on_stage: OnStage) -> None:
    agent, started = on_stage(), time.monotonic()
    slow = Command(title="slow", argv=("sleep", "60"), creates="/srv/never", timeout_s=1)
    assert failure(agent.run([slow]))[1:] == ("sleep 60 ended with status 124", "no end after 1 s")
    assert time.monotonic() - started < 30
    assert "sleep 60" not in agent.stage.run("ps", "-eo", "args").stdout


def test_a_defect_of_the_agent_is_reported_with_its_traceback(on_stage: OnStage) -> None:
    agent = on_stage()
    agent.extra = "from agent import paths\npaths.Absent.present = lambda self: 1 / 0\n"
    with pytest.raises(Exception, match="the agent crashed") as crashed:
        agent.run([Absent(path="/srv/x")])
    assert "ZeroDivisionError" in crashed.value.why  # type: ignore[attr-defined]  # a DerpfleetError


def test_only_the_newest_journals_and_their_backups_are_kept(on_stage: OnStage) -> None:
    agent = on_stage()
    kept = agent.stage.root / "var/lib/derpfleet"
    agent.run([File(path="/srv/x", content=b"0")])
    for number in range(30):
        old = kept / f"journal/2020-01-{number:02}.jsonl"
        old.write_text("")
        agent.stage.run("touch", "-d", f"2020-01-01 00:{number:02}", f"/var/lib/derpfleet/journal/{old.name}")
    (kept / "backups" / ("0" * 64)).write_text("of a journal that is gone")
    agent.run([File(path="/srv/x", content=b"1")])
    assert len(list((kept / "journal").iterdir())) == 20
    assert [path.name for path in Path(kept / "backups").iterdir()] == [sha256(b"0")]
