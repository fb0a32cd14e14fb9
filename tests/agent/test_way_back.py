"""A way back leaves the files of others as they are now; a killed run is not kept twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from engine.login import Unreachable
from engine.plan import sha256
from engine.resource import Absent, Directory, File, Resource, Service
from engine.run import Outcome
from engine.session import Session
from inventory.errors import DerpfleetError
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import back, deploy, history, roll_back, state
from tests.agent.plans import another_service, relay_host

PROGRAM = "/etc/relay/program.conf"


def with_program(setting: str) -> list[Resource]:
    return [*relay_host(setting=setting), File(path=PROGRAM, content=b"[program]\n")]


def test_a_file_that_a_withdrawal_has_removed_is_no_edit_by_hand(on_stage: OnStage) -> None:
    """Such as the program file of supervisord, which would start the relay at boot."""
    agent = on_stage()
    for setting in ("one", "two"):
        deploy(agent, with_program(setting))
    agent.run([Absent(path=PROGRAM)])
    with pytest.raises(DerpfleetError, match="the host is not as generation 2 left it"):
        roll_back(agent, 1)
    assert roll_back(agent, 1, removed=(PROGRAM,)).ok
    (agent.stage.root / PROGRAM[1:]).write_text("by hand\n")
    with pytest.raises(DerpfleetError, match="the host is not as generation 3 left it"):
        roll_back(agent, 2, removed=(PROGRAM,))


@pytest.mark.parametrize("after", ["theirs, edited\n", None])
def test_a_file_that_only_a_later_generation_shares_stays_as_others_have_it(
    on_stage: OnStage, after: str | None
) -> None:
    agent = on_stage()
    path = agent.stage.root / "etc/shared"
    path.write_text("theirs\n")
    shared = File(path="/etc/shared", content=b"theirs, ours\n", only_if_sha256=sha256(b"theirs\n"))
    deploy(agent, relay_host())
    deploy(agent, [*relay_host(), shared])
    path.write_text(after) if after else path.unlink()

    outcome = roll_back(agent, 1)

    assert (outcome.ok, outcome.stays) == (True, [shared.id])
    assert (path.read_text() if path.exists() else None) == after


def test_a_file_that_only_a_later_generation_shares_is_given_back_as_we_have_left_it(
    on_stage: OnStage,
) -> None:
    agent = on_stage()
    path = agent.stage.root / "etc/shared"
    path.write_text("theirs\n")
    deploy(agent, relay_host())
    for word, before in ((b"theirs, one\n", b"theirs\n"), (b"theirs, two\n", b"theirs, one\n")):
        shared = File(path="/etc/shared", content=word, only_if_sha256=sha256(before))
        deploy(agent, [*relay_host(), shared])
    assert roll_back(agent, 1).stays == []
    assert path.read_text() == "theirs\n"
    again = File(path="/etc/shared", content=b"theirs, ours\n", only_if_sha256=sha256(b"theirs\n"))
    deploy(agent, [*relay_host(), again], back)
    assert path.read_text() == "theirs\n"


def test_what_several_generations_have_made_goes_in_the_reverse_order(on_stage: OnStage) -> None:
    """A folder that is not empty yet would stay."""
    agent = on_stage()
    deploy(agent, relay_host())
    before = state(agent)
    folder = Directory(path="/srv/more")
    deploy(agent, [*relay_host(), folder])
    deploy(agent, [*relay_host(), folder, File(path="/srv/more/x", content=b"x\n")])
    assert roll_back(agent, 1).ok
    assert state(agent) == before


DIE_BEFORE_FORGETTING = """
import os
from agent import unconfirmed
unconfirmed.Unconfirmed.end = lambda _: os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("verb", [partial(deploy, resources=relay_host()), partial(roll_back, number=1)])
def test_a_generation_whose_run_was_killed_is_kept_once(
    on_stage: OnStage, verb: Callable[[Agent], Outcome]
) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    deploy(agent, relay_host(setting="two"))
    agent.extra = DIE_BEFORE_FORGETTING
    with pytest.raises(Unreachable):
        verb(agent)
    agent.extra = ""
    known = history(agent)
    assert (known.newest, bool(known.unconfirmed.plan)) == (3, True)
    assert deploy(agent, relay_host()).generation == 3
    known = history(agent)
    assert (known.newest, known.unconfirmed.plan) == (3, "")
    # A later run with the same plan is another one: somebody has edited a file.
    (agent.stage.root / "etc/relay/relay.env").write_text("by hand\n")
    assert deploy(agent, relay_host()).generation == 4


COUNT_LOOKS = """
from agent import paths
looks_of = paths.looks_of
def counted(tree):
    with open("/var/fake/looks", "a") as file:
        file.write(tree + "\\n")
    return looks_of(tree)
paths.looks_of = counted
"""


def test_a_tree_is_compared_once_on_the_way_back(on_stage: OnStage) -> None:
    agent = on_stage()
    deploy(agent, relay_host())
    looks = agent.stage.root / "var/fake/looks"
    agent.extra = COUNT_LOOKS

    def judge(outcome: Outcome, session: Session) -> object:
        looks.write_text("")
        return back(outcome, session)

    deploy(agent, relay_host(setting="two"), judge)
    assert looks.read_text() == "/srv/relay\n"


def test_a_host_without_anything_of_ours_has_no_folder_of_the_agent_either(on_stage: OnStage) -> None:
    agent = on_stage()
    ours = [agent.stage.root / path for path in ("var/lib/derpfleet", "run/derpfleet")]
    before = state(agent)
    deploy(agent, [File(path="/etc/plain", content=b"ours\n")])
    assert [path.is_dir() for path in ours] == [True, True]
    gone = [Absent(path="/etc/plain"), Absent(path="/var/lib/derpfleet")]
    assert agent.run(gone).counts["changed"] == 2
    assert [path.exists() for path in ours] == [False, False]
    again = agent.run(gone)
    assert (again.counts["changed"], [path.exists() for path in ours]) == (0, [False, False])
    assert history(agent).generations == ()
    assert [path.exists() for path in ours] == [False, False]
    assert state(agent) == before


@pytest.mark.parametrize("action", ["restart_on", "reload_on"])
def test_a_service_acts_when_a_file_goes_that_only_the_later_plan_had(
    on_stage: OnStage, action: str
) -> None:
    """Else it would go on with what it has read there."""
    agent = on_stage()
    unit, _ = another_service()
    site = File(path="/etc/site", content=b"a site\n")
    deploy(agent, [unit, Service(unit="more.service", restart_on=(unit.id,))])
    log = agent.stage.root / "var/fake/log"
    with_site = [unit, site, Service(unit="more.service", **{action: (site.id,)})]
    log.write_text("")
    outcome = deploy(agent, with_site, back)
    assert outcome.failures == []
    done = [line for line in log.read_text().splitlines() if "more.service" in line]
    verb = action.partition("_")[0]
    assert done == [f"systemctl {verb} more.service"] * 2
