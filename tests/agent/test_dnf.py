"""dnf and rpm: packages, their configuration files, and the locks of both.

The stage has no apt. Small fakes answer as dnf 4 and rpm do.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from engine.resource import Conffile, Package
from tests.agent.conftest import USUAL
from tests.agent.driver import Agent, at_work, fakes
from tests.agent.test_packages import WAITS_1_S, WANTED, held
from tests.support.sshd import Sshd

MAIN = "/etc/nginx/nginx.conf"
QUIETLY = "dnf --quiet --assumeyes --setopt=install_weak_deps=False --setopt=exit_on_lock=True"
NO_MATCH = "Error: Unable to find a match: nginx\n"
LOCKED = "Error: Can't create transaction lock on /var/lib/rpm/.rpm.lock (Resource temporarily unavailable)\n"
DNFS_PID = "/var/lib/dnf/rpmdb_lock.pid"
WORK = """
import os, sys
open("/proc/self/comm", "w").write("dnf-automatic")
os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
open(sys.argv[1], "w").write(str(os.getpid()))
print("at work", flush=True)
sys.stdin.read()
os.unlink(sys.argv[1])
"""


@pytest.fixture
def on_el(new_sshd: Callable[..., Sshd], tmp_path: Path) -> Callable[..., Agent]:
    """Return a function that starts an agent on a stage without apt, with these files."""
    programs = {path: text for path, text in fakes().items() if not path.endswith(("apt-get", "dpkg-query"))}
    without, runs = ("/usr/bin/apt-get",), tmp_path / "runs"
    return lambda **files: Agent(
        new_sshd(accounts=(), files=programs | files, without=without), USUAL, runs
    )


def dnf_at_work(agent: Agent) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """Let a process of the stage note its id as dnf does. It ends with its input."""
    return at_work(agent, WORK, DNFS_PID)


def test_missing_packages_are_installed_with_one_call(on_el: Callable[..., Agent]) -> None:
    agent = on_el(**{"/var/fake/packages/openssl": ""})
    wanted = [Package(package=name) for name in ("openssl", "nginx", "nftables")]
    assert agent.run(wanted).changed == ["package:nginx", "package:nftables"]
    assert agent.log() == [f"{QUIETLY} install nginx nftables"]
    agent.forget()
    assert agent.run(wanted).changed == []
    assert agent.log() == []


def test_a_package_that_no_repository_has_fails_in_dnfs_words(on_el: Callable[..., Agent]) -> None:
    agent = on_el(**{"/var/fake/install.fails": NO_MATCH})
    [failure] = agent.run(WANTED).failures
    assert failure.what == "dnf --quiet --assumeyes --setopt=install_weak_deps=False ended with status 1"
    assert failure.why == NO_MATCH.strip()
    assert [line.split()[-1] for line in agent.log()] == ["nginx", "makecache", "nginx"]


def test_a_lock_that_comes_between_is_waited_for(on_el: Callable[..., Agent]) -> None:
    """dnf fails at once when rpm's lock is held."""
    agent = on_el(**{"/var/fake/install.fails": LOCKED, "/var/fake/install.passes": ""})
    assert agent.run(WANTED).changed == ["package:nginx"]


@pytest.mark.parametrize("path", ["/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"])
def test_rpms_lock_is_waited_for(on_el: Callable[..., Agent], path: str) -> None:
    agent = on_el()
    with held(agent, path) as holder:
        waits = _released_when_seen(agent, holder)
    assert waits[0].startswith("the package manager's lock is held by unattended-upgr (pid ")


def test_dnfs_own_lock_is_waited_for(on_el: Callable[..., Agent]) -> None:
    agent = on_el()
    with dnf_at_work(agent) as worker:
        waits = _released_when_seen(agent, worker)
    assert waits[0].startswith("the package manager's lock is held by dnf-automatic (pid ")


def _released_when_seen(agent: Agent, holder: subprocess.Popen[bytes]) -> list[str]:
    """Install while the lock is held; let it go when the agent waits. Return the reasons."""
    waits: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "waiting" and holder.stdin:
            waits.append(event["reason"])
            holder.stdin.close()

    assert agent.run(WANTED, on_event=hear).changed == ["package:nginx"]
    assert len(waits) == 1
    return waits


def test_the_wait_has_an_end(on_el: Callable[..., Agent]) -> None:
    agent = on_el()
    agent.extra = WAITS_1_S
    with held(agent, "/var/lib/rpm/.rpm.lock"):
        [failure] = agent.run(WANTED).failures
    assert failure.what == "the package manager is still locked after 1 s"
    assert agent.log() == []


def test_the_id_of_a_dnf_that_was_killed_holds_nothing(on_el: Callable[..., Agent]) -> None:
    agent = on_el(**{DNFS_PID: "999999"})
    assert agent.run(WANTED).changed == ["package:nginx"]


def test_a_configuration_file_is_put_back_from_the_package_that_has_it(on_el: Callable[..., Agent]) -> None:
    agent = on_el(
        **{
            f"/var/fake/payload/nginx-core{MAIN}": "packaged\n",
            "/var/fake/packages/nginx-core": "",
            MAIN: "packaged\n",
        }
    )
    wanted = [Conffile(path=MAIN, package="nginx")]
    assert agent.run(wanted).changed == []
    (agent.stage.root / MAIN.lstrip("/")).write_text("changed\n")
    assert agent.run(wanted).changed == [f"conffile:{MAIN}"]
    assert (agent.stage.root / MAIN.lstrip("/")).read_text() == "packaged\n"
    assert agent.log() == [f"{QUIETLY} reinstall nginx-core"]
