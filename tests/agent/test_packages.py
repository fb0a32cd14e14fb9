"""A package manager that cannot be used at once.

Another program has its lock, or a power cut interrupted it.
"""

from __future__ import annotations

import io
import subprocess
from contextlib import AbstractContextManager
from typing import Any

import pytest
from rich.console import Console

from engine.report import Report
from engine.resource import File, Package
from engine.session import Session
from tests.agent.driver import Agent, OnStage, at_work

WANTED = [Package(package="nginx")]
WAITS_1_S = "from agent import packages\npackages.LOCK_WAIT_S = 1\n"
HOLD = """
import fcntl, os, sys
open("/proc/self/comm", "w").write("unattended-upgr")
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("at work", flush=True)
sys.stdin.read()
"""


def held(
    agent: Agent, path: str = "/var/lib/dpkg/lock-frontend"
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Take the lock as apt and dpkg do, by a process of the stage. It ends with its input."""
    return at_work(agent, HOLD, path)


def test_the_holder_is_named_and_waited_for(on_stage: OnStage) -> None:
    agent, shown = on_stage(), io.StringIO()
    report = Report(console=Console(file=shown, width=200))
    with held(agent) as holder:

        def hear(event: dict[str, Any]) -> None:
            report.agent_event("hk1", event)
            if event["event"] == "waiting" and holder.stdin:
                holder.stdin.close()

        assert agent.run(WANTED, on_event=hear).changed == ["package:nginx"]
    [waiting] = [line for line in shown.getvalue().splitlines() if "waiting" in line]
    assert waiting.startswith(
        "hk1     waiting      package:nginx: the package manager's lock is held by unattended-upgr (pid "
    )


@pytest.mark.parametrize(
    "path", ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"]
)
def test_the_wait_has_an_end(on_stage: OnStage, path: str) -> None:
    agent, waits = on_stage(), list[dict[str, Any]]()
    agent.extra = WAITS_1_S
    agent.stage.run("sh", "-c", "touch /var/lib/apt/lists/fresh_Packages")

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "waiting":
            waits.append(event)

    with held(agent, path):
        [failure] = agent.run(WANTED, on_event=hear).failures
    assert len(waits) == 1
    assert failure.what == "the package manager is still locked after 1 s"
    assert failure.why.startswith("held by unattended-upgr (pid ")
    assert agent.log() == []


def test_a_stop_ends_the_wait(on_stage: OnStage) -> None:
    agent, sessions = on_stage(), list[Session]()
    with held(agent):
        outcome = agent.run(
            WANTED,
            on_session=sessions.append,
            on_event=lambda event: sessions[0].stop() if event["event"] == "waiting" else None,
        )
    assert outcome.counts == {"ok": 0, "changed": 0, "failed": 1, "skipped": 0}
    assert outcome.stopped
    assert outcome.failures[0].what == "stopped while the package manager was locked"
    assert agent.log() == []


def test_what_a_power_cut_interrupted_is_finished_first(on_stage: OnStage) -> None:
    agent = on_stage(
        files={
            "/var/fake/bin/dpkg": '#!/bin/sh\necho "dpkg $*" >>/var/fake/log\nrm /var/lib/dpkg/updates/*\n'
        }
    )
    (agent.stage.root / "var/lib/dpkg/updates/0003").write_text("Package: nginx\n")
    assert agent.run(WANTED).changed == ["package:nginx"]
    assert agent.log()[0] == "dpkg --force-confold --configure --pending"
    assert "install" in agent.log()[-1]
    agent.forget()
    assert agent.run([Package(package="nftables")]).changed == ["package:nftables"]
    assert not any(line.startswith("dpkg ") for line in agent.log())


def test_what_was_half_unpacked_is_put_there_anew(on_stage: OnStage) -> None:
    agent = on_stage(files={"/var/fake/torn": "libc6:amd64 ok\nlibnftnl11:amd64 reinstreq\n"})
    assert agent.run(WANTED).changed == ["package:nginx"]
    installs = [line.split() for line in agent.log() if " install " in line]
    assert [words[-2:] for words in installs] == [
        ["--reinstall", "libnftnl11:amd64"],
        ["--no-install-recommends", "nginx"],
    ]


def test_a_source_that_came_in_the_same_run_is_read(on_stage: OnStage) -> None:
    agent = without_index(on_stage())
    source = File(path="/etc/apt/sources.list.d/docker.sources", content=b"Types: deb\n")
    wanted = [Package(package="nginx"), source, Package(package="docker-ce", needs=(source.id,))]
    assert "package:docker-ce" in agent.run(wanted).changed
    verbs = [next(word for word in line.split() if word in ("update", "install")) for line in agent.log()]
    assert verbs == ["update", "install", "update", "install"]


GONE = "E: The repository 'http://gone.example stable Release' no longer has a Release file.\n"


def test_a_dead_source_of_others_stops_nothing(on_stage: OnStage) -> None:
    agent = without_index(on_stage(files={"/var/fake/update.fails": GONE}))
    assert agent.run(WANTED).changed == ["package:nginx"]


def test_a_source_that_is_gone_is_reported_with_the_package_that_fails(on_stage: OnStage) -> None:
    missing = "E: Unable to locate package nginx\n"
    agent = without_index(
        on_stage(files={"/var/fake/update.fails": GONE, "/var/fake/install.fails": missing})
    )
    [failure] = agent.run(WANTED).failures
    assert failure.what == "apt-get --quiet --quiet --assume-yes ended with status 100"
    assert failure.why == f"{missing}before that, apt-get update had failed:\n{GONE.strip()}"


def without_index(agent: Agent) -> Agent:
    """So that the package manager's lists are read anew."""
    for index in (agent.stage.root / "var/lib/apt/lists").glob("*Packages*"):
        index.unlink()
    return agent
