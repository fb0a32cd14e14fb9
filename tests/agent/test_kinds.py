"""Single kinds on hosts that are not as they should be, with the newest Python at hand.

Files, directories and links are in test_paths.py, secrets in test_secrets.py.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from engine.events import Event
from engine.health import Exec, Watch
from engine.plan import sha256
from engine.resource import Absent, Command, File, Group, NftTable, Package, User
from tests.agent.driver import OnStage, failure
from tests.agent.plans import FOLDER, RULES, UNIT, environment, service

STEPPED_CLOCK = """
import itertools, time
real, steps = time.time, itertools.count(0, %d)
time.time = lambda: real() + next(steps)
"""


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


def test_a_package_that_is_wanted_for_a_file_is_installed_only_where_no_other_brought_it(
    on_stage: OnStage,
) -> None:
    agent = on_stage()
    engine = Package(package="docker.io")
    client = Package(package="docker-cli", creates="/usr/bin/client", needs=(engine.id,))
    brought = agent.stage.root / "var/fake/payload/docker.io/usr/bin/client"
    brought.parent.mkdir(parents=True)
    brought.write_text("")
    assert agent.run([engine, client]).changed == [engine.id]
    (agent.stage.root / "usr/bin/client").unlink()
    assert agent.run([engine, client]).changed == [client.id]


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


def test_only_a_run_that_changes_something_has_a_journal(on_stage: OnStage) -> None:
    """A package is no path, whose former state would be noted."""
    agent = on_stage()
    plan = [Package(package="nginx")]
    for _ in range(2):
        agent.run(plan)
        [journal] = (agent.stage.root / "var/lib/derpfleet/journal").iterdir()
        assert journal.read_text() == '{"id": "package:nginx", "status": "changed"}\n'


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
