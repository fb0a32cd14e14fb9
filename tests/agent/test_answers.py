"""Programs are asked once for all resources, and again after each change."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from engine.resource import Package, Resource, Service
from tests.agent.driver import OnStage
from tests.agent.plans import another_service, another_table, relay_host

FILES = Path(__file__).parent.parent.parent / "files"
SPY = """
from agent import apt, nft, service, systemd
def note(words):
    with open("/var/fake/asked", "a") as file:
        file.write(words + "\\n")
def spied(run):
    def spy(argv, *more):
        note(" ".join(argv))
        return run(argv, *more)
    return spy
for module in (apt, nft, systemd):
    module.run = spied(module.run)
def listeners(look=service.listeners):
    note("sockets")
    return look()
service.listeners = listeners
"""
PLAY = """
import json
from agent.answers import KeptAnswers
answers, asked, said = KeptAnswers(), [], []
def ask(*words):
    asked.append(words)
    return len(asked)
said += [answers.of(ask), answers.of(ask), answers.of(ask, "a"), answers.of(ask, "a")]
try:
    with answers.changing():
        said += [answers.of(ask), answers.of(ask)]
        raise OSError
except OSError:
    said += [answers.of(ask), answers.of(ask)]
print(json.dumps(said))
"""


def play(program: str, *words: str) -> str:
    argv = [sys.executable, "-B", "-c", program, *words]
    done = subprocess.run(argv, cwd=FILES, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_an_answer_is_kept_until_something_changes() -> None:
    assert json.loads(play(PLAY)) == [1, 1, 2, 2, 3, 4, 5, 5]


def test_a_check_asks_each_question_once(on_stage: OnStage) -> None:
    agent = on_stage()
    wanted = [*relay_host(), *another_service(), *another_table()]
    assert agent.run(wanted).ok
    agent.extra = SPY
    agent.run([with_a_socket(resource) for resource in wanted], mode="check")
    asked = (agent.stage.root / "var/fake/asked").read_text().splitlines()
    assert set(Counter(asked).values()) == {1}
    assert Counter(words.split()[0] for words in asked) == {
        "dpkg-query": 1, "nft": 2, "systemctl": 1, "sockets": 1,
    }  # fmt: skip


def test_packages_of_one_batch_are_asked_for_together(on_stage: OnStage) -> None:
    """Before, while the batch is found, and after it."""
    agent = on_stage()
    agent.extra = SPY
    assert agent.run([Package(package=f"package-{number}") for number in range(5)]).ok
    asked = (agent.stage.root / "var/fake/asked").read_text().splitlines()
    assert sum("Status-Status" in words for words in asked) == 3


def with_a_socket(resource: Resource) -> Resource:
    """Return a service with a place that it has to listen on, and any other resource as it is."""
    return replace(resource, listens=("127.0.0.1:1",)) if isinstance(resource, Service) else resource


@pytest.mark.parametrize("identity", ["file:/etc/a b.conf", "service:x.service/http", "command:ü ~%", "a_-."])
def test_a_debts_name_is_as_it_always_was(identity: str) -> None:
    program = "import sys; from agent.journal import file_name; print(ascii(file_name(sys.argv[1])))"
    assert play(program, identity).strip() == ascii(quote(identity, safe=""))
