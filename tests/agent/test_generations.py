"""Generations are kept by a proof only. A host goes back to any of them by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.plan import sha256
from engine.resource import Absent, Directory, File, Resource, Service, Symlink, Tree
from engine.run import Outcome, Verb
from engine.session import Session
from inventory.errors import DerpfleetError
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import (
    PROOF,
    back,
    deploy,
    deployed,
    history,
    keep,
    record,
    returned,
    roll_back,
    state,
)
from tests.agent.plans import relay_host

ENVIRONMENT = "etc/relay/relay.env"


def files(agent: Agent, folder: str) -> list[str]:
    return sorted(path.name for path in (agent.stage.root / "var/lib/derpfleet" / folder).iterdir())


def test_a_proof_makes_a_generation_and_no_change_makes_none(on_stage: OnStage) -> None:
    agent = on_stage()
    first = deploy(agent, relay_host())
    assert (first.ok, first.generation) == (True, 1)
    again = deploy(agent, relay_host())
    assert (again.counts["changed"], again.generation) == (0, 0)
    assert deploy(agent, relay_host(setting="two")).generation == 2

    known = history(agent)
    assert [one.number for one in known.generations] == [2, 1]
    newest = known.generations[0]
    assert (newest.verb, newest.about, newest.proof) == ("deploy", {"release": "r1"}, PROOF)
    assert newest.changes == 3
    assert newest.who and newest.at and newest.plan.startswith("sha256:")
    assert known.unconfirmed.plan == ""


def test_a_host_from_before_generations_gets_its_first_one_without_a_change(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run(relay_host()).ok
    outcome = deploy(agent, relay_host())
    assert (outcome.counts["changed"], outcome.generation) == (0, 1)


def test_contents_are_on_the_host_once_and_no_secret_is_among_them(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    contents = files(agent, "backups")
    assert {sha256(b"SETTING=one\n"), sha256(b"SETTING=two\n")} <= set(contents)
    assert sha256(b"privkey:00\n") not in contents
    folder = agent.stage.root / "var/lib/derpfleet"
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*/*") if path.is_file()} <= {0o600, 0o644}


def test_back_and_forth_is_the_same_state_each_time(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    one = state(agent)
    deploy(agent, relay_host(setting="two", fin_timeout_s=32))
    two = state(agent)
    agent.forget()

    outcome = roll_back(agent, 1)

    assert (outcome.ok, outcome.generation, state(agent)) == (True, 3, one)
    assert agent.log() == ["systemctl restart relay.service"]
    assert roll_back(agent, 2).generation == 4
    assert state(agent) == two
    assert [(each.number, each.verb) for each in history(agent).generations][:2] == [
        (4, "rollback"), (3, "rollback")
    ]  # fmt: skip


def test_a_dry_run_shows_the_way_back_and_changes_nothing(on_stage: OnStage) -> None:
    agent, events = on_stage(), []
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    before = {**agent.stamps(), **agent.tree()}
    outcome = agent.run_job(returned(1, verb=Verb.CHECK), on_event=events.append)
    assert outcome.changed == ["file:/etc/relay/relay.env", "command:copy", "service:relay.service"]
    assert any("+SETTING=one" in event.get("text", "") for event in events)
    assert {**agent.stamps(), **agent.tree()} == before


def test_what_only_a_later_generation_has_is_as_it_was_before_it(on_stage: OnStage) -> None:
    agent, root = on_stage(), None
    root = agent.stage.root
    (root / "etc/theirs").write_text("theirs\n")
    (root / "etc/link").symlink_to("theirs")
    (root / "etc/old").write_text("old\n")
    deploy(agent, relay_host())
    one, theirs = state(agent), (root / "etc/theirs").stat()
    unit = File(path="/etc/systemd/system/more.service", content=b"[Service]\nExecStart=/bin/true\n")
    more: list[Resource] = [
        Directory(path="/etc/more"),
        File(path="/etc/more/new", content=b"new\n"),
        File(path="/etc/theirs", content=b"ours\n", mode="0600"),
        Symlink(path="/etc/link", target="more"),
        Absent(path="/etc/old"),
        unit,
        Service(unit="more.service", restart_on=(unit.id,), timeout_s=1),
    ]
    deploy(agent, [*relay_host(), *more])
    assert (root / "etc/theirs").read_text() == "ours\n"

    assert roll_back(agent, 1).ok

    assert state(agent) == one
    assert not (root / "etc/more").exists()
    assert (root / "etc/theirs").read_text() == "theirs\n"
    assert (root / "etc/theirs").stat().st_mode == theirs.st_mode
    assert (root / "etc/link").readlink() == Path("theirs")
    assert (root / "etc/old").read_text() == "old\n"
    assert "systemctl stop more.service" in agent.log()


def test_ten_generations_are_kept_with_what_was_there_before_all_of_them(on_stage: OnStage) -> None:
    agent = on_stage()
    environment = agent.stage.root / "etc/plain"
    environment.write_text("found\n")
    for number in range(13):
        deploy(agent, [File(path="/etc/plain", content=b"%d\n" % number)])
    assert [one.number for one in history(agent).generations] == list(range(13, 3, -1))
    assert files(agent, "generations")[0] == "0.json"
    assert record(agent, 0)["found"]["/etc/plain"]["was"]["sha256"] == sha256(b"found\n")
    kept = {sha256(b"%d\n" % number) for number in range(3, 13)} | {sha256(b"found\n")}
    assert kept <= set(files(agent, "backups"))
    assert roll_back(agent, 4).ok
    assert environment.read_text() == "3\n"
    with pytest.raises(DerpfleetError, match="there is no generation 3 on this host") as unknown:
        roll_back(agent, 3)
    assert "kept are: 5, 6, 7, 8, 9, 10, 11, 12, 13, 14" in unknown.value.why


def test_a_former_release_stays_until_no_generation_has_it(on_stage: OnStage) -> None:
    agent, old = on_stage(), Absent(path="/srv/relay", unless_kept="/srv/relay")
    deploy(agent, relay_host())
    others = [one for one in relay_host() if "/srv/relay" not in one.id]
    for number in range(11):
        assert (agent.stage.root / "srv/relay").is_dir()
        deploy(agent, [*others, old, File(path="/etc/plain", content=b"%d\n" % number)])
    assert not (agent.stage.root / "srv/relay").exists()


def test_a_later_release_stays_for_the_way_there_until_the_host_is_as_found(on_stage: OnStage) -> None:
    agent = on_stage()
    srv = agent.stage.root / "srv"
    archive = next(one.archive for one in relay_host() if isinstance(one, Tree))

    def of(release: str) -> list[Resource]:
        return [Tree(path=f"/srv/{release}", archive=archive), Symlink(path="/srv/current", target=release)]

    deploy(agent, of("one"))
    deploy(agent, of("two"))
    assert roll_back(agent, 1).ok
    assert ((srv / "current").readlink(), (srv / "two").is_dir()) == (Path("one"), True)
    assert roll_back(agent, 2).ok
    assert (srv / "current").readlink() == Path("two")

    assert deploy(agent, of("three"), back).generation == 4
    assert not (srv / "three").exists()
    assert roll_back(agent, 0).ok
    assert not {"one", "two", "current"} & {path.name for path in srv.iterdir()}


def test_a_file_that_was_edited_by_hand_is_not_overwritten(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    (agent.stage.root / ENVIRONMENT).write_text("by hand\n")
    with pytest.raises(DerpfleetError, match="the host is not as generation 2 left it") as refused:
        roll_back(agent, 1)
    assert "file:/etc/relay/relay.env" in refused.value.why
    assert "--force" in refused.value.next
    assert agent.run_job(returned(1, verb=Verb.CHECK)).drift == ["file:/etc/relay/relay.env"]
    assert roll_back(agent, 1, force=True).ok
    assert (agent.stage.root / ENVIRONMENT).read_text() == "SETTING=one\n"


def test_the_note_of_a_withdrawal_is_no_edit_by_hand(on_stage: OnStage) -> None:
    agent, note = on_stage(), "/var/lib/derpfleet/withdrawn"
    for setting in ("one", "two"):
        deploy(agent, [*relay_host(setting=setting), Absent(path=note)])
    (agent.stage.root / note[1:]).write_text("withdrawn\n")
    assert agent.run_job(returned(1, verb=Verb.CHECK)).drift == []
    assert roll_back(agent, 1).ok
    assert not (agent.stage.root / note[1:]).exists()


def test_a_file_that_others_write_too_is_replaced_only_as_we_have_left_it(on_stage: OnStage) -> None:
    agent = on_stage()
    path = agent.stage.root / "etc/shared"
    path.write_text("theirs\n")

    def plan(word: bytes, before: bytes) -> list[Resource]:
        shared = File(path="/etc/shared", content=word, only_if_sha256=sha256(before))
        return [*relay_host(), shared]

    deploy(agent, plan(b"theirs, one\n", b"theirs\n"))
    deploy(agent, plan(b"theirs, two\n", b"theirs, one\n"))
    assert roll_back(agent, 1).ok
    assert path.read_text() == "theirs, one\n"
    path.write_text("theirs, edited\n")
    outcome = roll_back(agent, 2)
    assert (outcome.ok, outcome.stays) == (True, ["file:/etc/shared"])
    assert path.read_text() == "theirs, edited\n"


def test_a_generation_without_its_contents_is_refused_before_a_change(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    two = state(agent)
    (agent.stage.root / "var/lib/derpfleet/backups" / sha256(b"SETTING=one\n")).unlink()
    with pytest.raises(DerpfleetError, match="contents of it are gone") as refused:
        roll_back(agent, 1)
    assert "file:/etc/relay/relay.env" in refused.value.why
    assert state(agent) == two


@pytest.mark.parametrize(
    ("text", "what"),
    [('{"format": 99}', "made by a newer derpfleet"), ("{", "cannot be read"), ("[]", "cannot be read")],
)
def test_a_file_that_is_no_generation_of_ours_is_refused(on_stage: OnStage, text: str, what: str) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    (agent.stage.root / "var/lib/derpfleet/generations/1.json").write_text(text)
    with pytest.raises(DerpfleetError, match=what):
        roll_back(agent, 1)
    assert what in history(agent).generations[1].trouble
    contents = files(agent, "backups")
    assert deploy(agent, relay_host(setting="three")).generation == 3  # deploys go on, and lose nothing
    assert set(contents) <= set(files(agent, "backups"))


def keyed(word: str, setting: str) -> list[Resource]:
    content = f"{word}\n".encode()
    key = File(path="/etc/relay/relay.key", content=content, mode="0640", group="relay", secret=True)
    return [key if one.id == key.id else one for one in relay_host(setting=setting)]


def test_a_secret_stays_as_it_is_now(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, keyed("former", "one"))
    deploy(agent, keyed("latter", "two"))
    outcome = roll_back(agent, 1)
    assert outcome.ok and outcome.stays == ["file:/etc/relay/relay.key"]
    assert (agent.stage.root / "etc/relay/relay.key").read_text() == "latter\n"


def test_a_secret_that_a_command_took_is_no_gap(on_stage: OnStage) -> None:
    """Version 0.1.0 kept the spec of an auth key that is used up by then."""
    agent = on_stage()
    used = File(path="/run/relay.key", content=b"used up\n", mode="0600", secret=True)
    deploy(agent, [*relay_host(), used])
    deploy(agent, relay_host(setting="two"))
    (agent.stage.root / "run/relay.key").unlink(missing_ok=True)
    assert used.id in [spec["id"] for spec in record(agent, 1)["resources"]]
    outcome = roll_back(agent, 1)
    assert outcome.ok and used.id in outcome.stays
    assert (agent.stage.root / ENVIRONMENT).read_text() == "SETTING=one\n"


@pytest.mark.parametrize("is_part", [False, True])
def test_a_refusal_says_which_state_is_in_force(on_stage: OnStage, is_part: bool) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    if is_part:
        deploy(agent, relay_host(setting="three"), lambda _, session: session.leave())
    (agent.stage.root / "var/lib/derpfleet/backups" / sha256(b"SETTING=one\n")).unlink()
    words = "that nobody has confirmed, after generation 2" if is_part else "generation 2 is in force"
    for number in (1, 99):
        with pytest.raises(DerpfleetError) as refused:
            roll_back(agent, number)
        assert words in refused.value.why


NO_ROOM = """
import errno
from agent import generations
def write(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/derpfleet/generations/2.json")
generations.Generations._write = write
"""


def test_without_room_for_a_generation_the_proved_state_stays_and_is_kept_later(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    agent.extra = NO_ROOM
    with pytest.raises(DerpfleetError, match="proved and in force, but the host cannot") as refused:
        deploy(agent, relay_host(setting="two"))
    agent.extra = ""
    assert refused.value.where.endswith("generations/2.json") and "df -h" in refused.value.next
    assert "that nobody has confirmed, after generation 1" in refused.value.why
    assert (agent.stage.root / ENVIRONMENT).read_text() == "SETTING=two\n"
    outcome = deploy(agent, relay_host(setting="two"))
    assert (outcome.changed, outcome.generation) == ([], 2)


def test_a_part_of_a_plan_is_unconfirmed_until_a_whole_one_is_kept(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())

    def change(setting: str) -> None:
        job = deployed(relay_host(setting=setting))
        part = replace(job, only=("file:/etc/relay/relay.env", "service:relay.service"))
        agent.run_job(part, judge=lambda _, session: session.leave())
        assert history(agent).unconfirmed.verb == "deploy --only"

    change("two")
    outcome = deploy(agent, relay_host(setting="two"))
    assert (outcome.changed, outcome.generation) == (["command:copy"], 2)  # it was left out
    change("three")
    assert roll_back(agent, 2).ok  # it is no edit by hand
    assert (agent.stage.root / ENVIRONMENT).read_text() == "SETTING=two\n"


def test_contents_of_twenty_deploys_are_few(on_stage: OnStage) -> None:
    """Releases are unpacked trees: of them no archive is kept."""
    agent = on_stage()
    for number in range(20):
        deploy(agent, relay_host(setting=str(number)))
    kept = agent.stage.root / "var/lib/derpfleet"
    assert len(files(agent, "backups")) <= 30
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) < 1 << 20


def test_a_plan_that_is_not_proved_is_taken_back(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    one = state(agent)
    seen: list[str] = []

    def judge(outcome: Outcome, session: Session) -> None:
        seen.append((agent.stage.root / ENVIRONMENT).read_text())
        assert session.back()

    outcome = deploy(agent, relay_host(setting="two", fin_timeout_s=33), judge)
    assert (seen, outcome.generation, outcome.astray) == (["SETTING=two\n"], 1, [])
    assert state(agent) == one
    assert [each.number for each in history(agent).generations] == [1]
    assert history(agent).unconfirmed.plan == ""
    assert deploy(agent, relay_host(setting="two"), keep).generation == 2


def test_a_secret_that_stayed_is_not_that_of_changes_nobody_confirmed(on_stage: OnStage) -> None:
    """The contents of the generation's own are gone: what was confirmed last takes their place."""
    agent = on_stage()
    deploy(agent, keyed("former", "one"))
    deploy(agent, keyed("latter", "two"))
    assert roll_back(agent, 1).generation == 3
    then = state(agent)
    assert deploy(agent, keyed("newest", "three"), back).generation == 3
    assert state(agent) == then

    deploy(agent, keyed("newest", "three"), lambda _, session: session.leave())
    outcome = roll_back(agent, 1)
    assert (outcome.generation, outcome.stays) == (4, ["file:/etc/relay/relay.key"])
    assert state(agent) == then
    assert (agent.stage.root / "etc/relay/relay.key").read_text() == "latter\n"


def test_a_secret_comes_back_with_the_plan_that_is_taken_back(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    key = File(path="/etc/relay/relay.key", content=b"new\n", mode="0640", group="relay", secret=True)
    deploy(agent, [key if one.id == key.id else one for one in relay_host()], back)
    assert (agent.stage.root / "etc/relay/relay.key").read_text() == "privkey:00\n"
    assert sha256(b"privkey:00\n") not in files(agent, "backups")


def test_a_resource_that_fails_leads_back_and_a_first_deploy_has_nothing_to_go_back_to(
    on_stage: OnStage,
) -> None:
    agent, judged = on_stage(), []

    def judge(outcome: Outcome, session: Session) -> None:
        judged.append(outcome.failures[0].id)
        session.back()

    assert not deploy(agent, relay_host(setting="broken"), judge).ok
    assert judged == []
    deploy(agent, relay_host())
    one = state(agent)
    outcome = deploy(agent, relay_host(setting="broken", fin_timeout_s=33), judge)
    assert judged == ["service:relay.service"]
    assert (outcome.ok, outcome.generation, state(agent)) == (False, 1, one)


def test_changes_that_nobody_judged_are_known_and_can_be_kept_or_taken_back(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    one = state(agent)

    def leave(_: Outcome, session: Session) -> None:
        session.leave()

    deploy(agent, relay_host(setting="two"), leave)
    assert history(agent).unconfirmed.verb == "deploy"
    outcome = roll_back(agent, 1)
    assert (outcome.generation, state(agent)) == (1, one)
    assert history(agent).unconfirmed.plan == ""
    deploy(agent, relay_host(setting="two"), leave)
    assert deploy(agent, relay_host(setting="two")).generation == 2
    assert replace(history(agent).unconfirmed, plan="") == history(agent).unconfirmed
