"""The history says since when a host is ours, and which files from before us are not kept."""

from __future__ import annotations

from engine.resource import File
from tests.agent.driver import OnStage
from tests.agent.generations import back, deploy, history, roll_back
from tests.agent.plans import relay_host

TOO_LARGE = 4 * 1024 * 1024 + 1  # as files/agent/journal.py has it
KEPT = 10


def test_a_file_of_others_that_is_too_large_stays_and_is_named(on_stage: OnStage) -> None:
    """On a way back that nobody asked for as well, and before one."""
    agent = on_stage()
    theirs = agent.stage.root / "etc/theirs"
    deploy(agent, relay_host())
    theirs.write_bytes(bytes(TOO_LARGE))
    more = [*relay_host(), File(path="/etc/theirs", content=b"ours\n")]
    assert deploy(agent, more, back).stays == ["file:/etc/theirs"]
    assert history(agent).lost == ()
    theirs.write_bytes(bytes(TOO_LARGE))
    deploy(agent, more)
    assert history(agent).lost == ("file:/etc/theirs",)
    assert roll_back(agent, 1).stays == ["file:/etc/theirs"]


def test_it_is_known_since_when_the_host_is_ours(on_stage: OnStage) -> None:
    agent = on_stage()
    assert history(agent).since == 0
    deploy(agent, relay_host(setting="0"))
    first = history(agent).generations[0].at
    for number in range(1, KEPT + 2):
        deploy(agent, relay_host(setting=str(number)))
    known = history(agent)
    assert (known.generations[-1].number, known.since) == (3, first)
