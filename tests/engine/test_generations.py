"""Confirmed plans over a real sshd: their turns on the wire, and a controller that is killed."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artefacts.release import archive
from engine.facts import Ask
from engine.generations import History
from engine.login import Login
from engine.resource import File, Resource, Tree
from engine.run import Job, Outcome, Verb, converge
from engine.session import Locked, Session
from lab.delaying import delaying
from tests.engine.conftest import login_to
from tests.support.sshd import Sshd

RTT_S = 0.1
KILLED_WHILE_ARMED = """
import os, pickle, signal, sys
from pathlib import Path
from tests.engine.test_generations import deployed, files
from engine.run import converge
login, runs = pickle.load(open(sys.argv[1], "rb"))
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
converge(login, deployed(files("new")), runs=runs, judge=kill)
"""


def files(word: str, number: int = 3) -> list[Resource]:
    return [File(path=f"/var/tmp/confirmed-{one}", content=word.encode()) for one in range(number)]


def deployed(resources: list[Resource], *, is_confirmed: bool = True) -> Job:
    """Return a deploy that has to be confirmed, or one that has not."""
    about = (lambda _: {"release": "r1"}) if is_confirmed else None
    return Job(verb=Verb.DEPLOY, plan=lambda _: resources, about=about)


def keep(_: Outcome, session: Session) -> None:
    assert session.keep({"proved": "0.1 s"})


@pytest.fixture
def turns(sshd: Sshd, tmp_path: Path) -> Callable[[Job], int]:
    """Return a function that runs a job and returns its turns on the wire."""

    def one(job: Job) -> int:
        with delaying((sshd.address, sshd.port), rtt_s=RTT_S) as proxy:
            known_hosts = tmp_path / "known_hosts"
            known_hosts.write_text(f"[{sshd.address}]:{proxy.port} {sshd.host_key}\n")
            login = login_to(sshd, port=proxy.port, known_hosts=known_hosts)
            assert converge(login, job, runs=tmp_path / "runs", judge=keep).ok
            return proxy.counts().turns

    return one


def test_no_change_costs_no_turn_more_and_a_confirmation_costs_one(turns: Callable[[Job], int]) -> None:
    plain = turns(deployed(files("old"), is_confirmed=False))
    turns(deployed(files("old")))
    no_change = turns(deployed(files("old"), is_confirmed=False))
    assert turns(deployed(files("old"))) == no_change <= 6
    assert turns(deployed(files("new"))) <= plain + 1 <= 8


def test_a_new_release_costs_the_turn_of_its_confirmation_alone(
    turns: Callable[[Job], int], tmp_path: Path
) -> None:
    """Its sources come with the plan, and its wheels, which fill two windows, are there."""
    wheel = tmp_path / "wheel"
    wheel.write_bytes(archive({"wheel": random.randbytes(4 << 20)}))

    def release(number: int) -> list[Resource]:
        sources = archive({"main": random.randbytes(300_000)})
        return [Tree(path=f"/var/tmp/release-{number}", archive=sources, shared=(wheel,))]

    one = release(1)
    first, no_change = turns(deployed(one)), turns(deployed(one))
    turns(deployed(release(2)))
    assert first > no_change + 2 and turns(deployed(release(3))) == no_change + 1


def test_a_killed_controller_leaves_the_old_state(sshd: Sshd, tmp_path: Path) -> None:
    login, runs = login_to(sshd), tmp_path / "runs"
    assert converge(login, deployed(files("old")), runs=runs, judge=keep).ok
    (tmp_path / "login").write_bytes(pickle.dumps((login, runs)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_ARMED, str(tmp_path / "login")],
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, "PYTHONPATH": "."},
        check=False,
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert until_free(login).unconfirmed.plan == ""
    assert (sshd.root / "var/tmp/confirmed-0").read_text() == "old"


def until_free(login: Login) -> History:
    """Wait until no agent has the lock. Return the host's generations."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with Session(login, ask=Ask(), run_id="x", on_event=lambda _: None) as session:
                return session.history()
        except Locked:
            assert time.monotonic() < deadline
            time.sleep(0.1)
