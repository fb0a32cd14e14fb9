"""Secrets on their way to a host are in no argument, environment, log, diff or other file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.login import Unreachable
from engine.plan import Mode
from engine.resource import Command, File, Resource
from engine.run import Outcome
from engine.session import Session
from inventory.secrets import Secret
from tests.agent.driver import DIE_AFTER_RESULT, Agent
from tests.agent.generations import Judge, back, deploy, keep, roll_back, state
from tests.agent.plans import relay_host

KEY, OTHER = "/etc/relay/relay.key", "/etc/relay/privkey.pem"
FORMER, LATTER = ("canary-former-5b1e", "canary-former-90c7"), ("canary-latter-aa02", "canary-latter-73fd")
PLACES = ("etc", "srv", "var/lib/derpfleet", "var/fake", "run", "tmp", "root/.cache")
# Every program that the agent starts, with all that others on the host can see of it.
LOG_PROGRAMS = """
import os, sys
def hook(name, arguments):
    if name == "subprocess.Popen":
        with open("/var/fake/started", "a") as log:
            log.write("%r %r%s" % (arguments[1], dict(arguments[3] or os.environ), chr(10)))
sys.addaudithook(hook)
"""


def plan(secrets: tuple[str, str], setting: str) -> list[Resource]:
    """Return a small relay host that has these secrets, and is restarted for them."""
    keys = [
        File(path=path, content=Secret(secret), mode="0640", group="relay", secret=True)
        for path, secret in zip((KEY, OTHER), secrets, strict=True)
    ]
    others = [resource for resource in relay_host(setting=setting) if resource.id != f"file:{KEY}"]
    *before, service = others
    triggers = (*service.triggers()["restart_on"], *(key.id for key in keys))
    # Of a service, not of any resource.
    return [*before, *keys, replace(service, restart_on=triggers)]  # type: ignore[call-arg]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the arguments and environments of the controller's programs."""
    seen: list[str] = []
    real = subprocess.Popen.__init__

    def init(self: Any, argv: Any, *rest: Any, **more: Any) -> None:
        seen.append(f"{argv} {dict(more.get('env') or os.environ)}")
        real(self, argv, *rest, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", init)
    yield seen


def found_in(text: str) -> set[str]:
    return {secret for secret in (*FORMER, *LATTER) if secret in text}


def files_with_secrets(root: Path) -> dict[str, set[str]]:
    """Return the secrets by the path of the file that has them, wherever a run may write."""
    files = [path for place in PLACES for path in (root / place).rglob("*")]
    texts = {
        str(path.relative_to(root)): path.read_bytes().decode(errors="replace")
        for path in files
        if path.is_file() and not path.is_symlink()
    }
    return {path: secrets for path, text in texts.items() if (secrets := found_in(text))}


def test_secrets_are_where_they_belong_and_nowhere_else(
    on_stage: Callable[..., Agent], started: list[str]
) -> None:
    agent, events = on_stage(), list[dict[str, Any]]()
    agent.extra = LOG_PROGRAMS

    def run(secrets: tuple[str, str], setting: str = "one", mode: Mode = "apply") -> bool:
        return agent.run(plan(secrets, setting), mode=mode, on_event=events.append).ok

    assert run(FORMER, mode="check")
    assert run(FORMER)
    assert run(LATTER, mode="check")
    assert not run(LATTER, "broken")  # the former secrets are put back
    assert files_with_secrets(agent.stage.root) == {KEY[1:]: {FORMER[0]}, OTHER[1:]: {FORMER[1]}}
    assert run(LATTER)
    assert files_with_secrets(agent.stage.root) == {KEY[1:]: {LATTER[0]}, OTHER[1:]: {LATTER[1]}}
    assert {oct((agent.stage.root / path[1:]).stat().st_mode) for path in (KEY, OTHER)} == {"0o100640"}

    of_host = (agent.stage.root / "var/fake/started").read_text()
    assert "systemctl" in of_host and "PATH" in of_host  # the log is not empty
    assert any("nsenter" in words for words in started)
    assert found_in(of_host + "".join(started)) == set()
    logs = [path for path in agent.runs.rglob("*") if path.is_file()]
    assert logs
    assert found_in(str(events) + "".join(path.read_text() for path in logs)) == set()
    assert {oct(path.stat().st_mode) for path in logs} == {"0o100600"}
    assert "(secret content)" in str(events)


def leave(_: Outcome, session: Session) -> None:
    session.leave()


@pytest.mark.parametrize(
    ("judge", "setting"),
    [(keep, "two"), (leave, "two"), (leave, "broken"), (back, "two"), (back, "broken")],
)
def test_whichever_way_an_armed_run_ends_its_secrets_are_in_their_places_only(
    on_stage: Callable[..., Agent], judge: Judge, setting: str
) -> None:
    agent = on_stage()
    deploy(agent, plan(FORMER, "one"))
    deploy(agent, plan(LATTER, setting), judge)
    found = files_with_secrets(agent.stage.root)
    assert {path for path in found if "derpfleet/incoming" in path} == set()
    if judge is back:
        assert found == {KEY[1:]: {FORMER[0]}, OTHER[1:]: {FORMER[1]}}
    if judge is keep:
        assert found == {KEY[1:]: {LATTER[0]}, OTHER[1:]: {LATTER[1]}}


def test_the_secrets_of_a_killed_run_are_gone_after_the_way_back(on_stage: Callable[..., Agent]) -> None:
    agent = on_stage()
    deploy(agent, plan(FORMER, "one"))
    agent.extra = DIE_AFTER_RESULT % 7
    with pytest.raises(Unreachable):
        deploy(agent, plan(LATTER, "two"))
    agent.extra = ""
    assert roll_back(agent, 1).ok
    assert files_with_secrets(agent.stage.root) == {KEY[1:]: {FORMER[0]}, OTHER[1:]: {FORMER[1]}}


def test_a_secret_that_was_used_up_is_not_needed_on_the_way_back(on_stage: Callable[..., Agent]) -> None:
    """As the auth key, with which a tailscaled joins once."""
    agent = on_stage()
    once = File(path="/etc/relay/once.key", content=Secret(FORMER[0]), secret=True)
    use = ("sh", "-c", f"touch /srv/joined; rm {once.path}")
    join = Command(title="joined", argv=use, creates="/srv/joined", needs=(once.id,))
    deploy(agent, [*relay_host(), once, join])
    before = state(agent)
    outcome = deploy(agent, [*relay_host(setting="two"), replace(join, needs=())], back)
    assert (outcome.generation, outcome.astray, state(agent)) == (1, [], before)
    assert roll_back(agent, 1).ok
    assert files_with_secrets(agent.stage.root) == {}
