"""Things of others come back as they were found, unless they were changed after us."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine.resource import Absent, AsFound, Directory, File, Package, Resource, Service, Sysctl
from tests.agent.driver import Agent, OnStage
from tests.agent.generations import deploy, keep

MARK = Directory(path="/etc/relay")
UNIT = File(path="/etc/systemd/system/theirs.service", content=b"[Service]\nExecStart=/bin/true\n")
SOMAXCONN = Sysctl(key="net.core.somaxconn", value="4096")
SUBJECTS = ("/etc/theirs", "/etc/link", "theirs.service", SOMAXCONN.id, "/etc/never")


def ours(word: str = "ours") -> list[Resource]:
    return [
        MARK,
        File(path="/etc/theirs", content=f"{word}\n".encode(), mode="0600"),
        Absent(path="/etc/link"),
        SOMAXCONN,
        Service(unit="theirs.service", enabled=False, running=False),
        Absent(path="/etc/never"),
    ]


def back() -> list[Resource]:
    return [AsFound(subject=subject, since=MARK.path) for subject in SUBJECTS]


def theirs(agent: Agent) -> tuple[str, str, str, str, bool]:
    """Return their file with its mode, their link, the setting, and whether their unit runs."""
    root = agent.stage.root
    path, link = root / "etc/theirs", root / "etc/link"
    setting = agent.stage.run("sysctl", "--values", SOMAXCONN.key).stdout.strip()
    runs = (root / "var/fake/units/theirs.service.active").exists()
    target = str(link.readlink()) if link.is_symlink() else ""
    return path.read_text(), oct(path.stat().st_mode), target, setting, runs


@pytest.fixture
def agent(on_stage: OnStage) -> Agent:
    """A host with things of others."""
    agent = on_stage()
    (agent.stage.root / "etc/theirs").write_text("theirs\n")
    (agent.stage.root / "etc/link").symlink_to("theirs")
    agent.stage.run("sysctl", "--write", f"{SOMAXCONN.key}=777")
    assert agent.run([UNIT, Service(unit="theirs.service", restart_on=(UNIT.id,))]).ok
    return agent


def test_it_comes_back_also_when_no_deploy_was_confirmed(agent: Agent) -> None:
    before = theirs(agent)
    assert before[2:] == ("theirs", "777", True)
    for judge in (lambda _, session: session.leave(), keep):
        deploy(agent, ours(), judge)
        assert theirs(agent)[1:] == ("0o100600", "", "4096", False)
        again = agent.run(back(), mode="check")
        assert again.changed == [one.id for one in back()[:4]]
        assert agent.run(back()).ok
        assert theirs(agent) == before
        assert agent.run(back()).changed == []


def test_the_first_state_counts_of_all_generations(agent: Agent) -> None:
    before = theirs(agent)
    for number in range(12):
        deploy(agent, ours(str(number)))
    assert agent.run(back()).ok
    assert theirs(agent) == before


def test_what_others_have_changed_after_us_stays(agent: Agent) -> None:
    deploy(agent, ours())
    (agent.stage.root / "etc/theirs").write_text("theirs again\n")
    (agent.stage.root / "etc/link").write_text("a file by now\n")
    agent.stage.run("sysctl", "--write", f"{SOMAXCONN.key}=888")
    assert agent.run(back()).changed == ["as_found:theirs.service"]
    assert theirs(agent)[0] == "theirs again\n" and theirs(agent)[3] == "888"


def test_notes_that_begin_after_us_bring_nothing_back(agent: Agent) -> None:
    """As on a host that a derpfleet without generations has deployed."""
    assert agent.run(ours()).ok
    deploy(agent, ours("second"))
    assert agent.run(back()).changed == []
    folder = Path(agent.stage.root / "var/lib/derpfleet/generations")
    (folder / "1.json").write_text("{")
    assert agent.run(back()).changed == []


def test_a_thing_that_a_package_of_ours_brought_was_not_there_before(agent: Agent) -> None:
    """The package manager starts its units at once, and so they run when we look first."""
    first = Package(package="ca-certificates")
    deploy(agent, [first, Package(package="theirs"), *ours()])
    of_package = [replace(one, package="package:theirs") for one in back()]
    assert agent.run(of_package).changed == []
    assert agent.run(back()).changed == [one.id for one in back()[:4]]


def test_a_host_without_notes_is_left_alone(on_stage: OnStage) -> None:
    agent = on_stage()
    assert agent.run(back()).changed == []
