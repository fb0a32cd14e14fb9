"""A relay is not restarted while it could ask nobody who may use it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from engine.events import Event
from engine.facts import Facts, Output
from engine.generations import Stored
from engine.report import Report
from engine.run import NOTHING, Job, Verb
from fleet.shared import shut_out
from fleet.shared.fleet import Fleet
from fleet.shared.shut_out import WouldShutOut
from inventory.model import Host
from tests.control.test_headscale import site_of
from tests.support.facts import DEBIAN_12

RUNNING = "service:derpfleet-relay.service"
SILENT = json.dumps({"step": "connection", "detail": "port 443: refused"})
ANSWERS = [json.dumps({"step": "", "allow": allow}) for allow in (False, True)]
JOB = Job(verb=Verb.DEPLOY, plan=lambda _: ())


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(site_of(), Report(console=Console(file=io.StringIO())))


@pytest.fixture
def host(fleet: Fleet) -> Host:
    return fleet.site.hosts["hk1"]


def facts(answer: str, *, runs: bool = True) -> Facts:
    said = {"admission_before": answer, "clients_before": "derp_clients_local 0" if runs else ""}
    commands = {name: Output(status=0, stdout=text, stderr="") for name, text in said.items()}
    return replace(DEBIAN_12, commands=commands, listening=())


class Compared:
    """Stands in for a second session that only compares. `took`: the plans that it was given."""

    def __init__(self, changed: str) -> None:
        self.changed, self.took = changed, list[object]()

    def session(self, login: object, ask: object, *, on_event: Callable[[Event], None]) -> Any:
        self.on_event = on_event
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, plan: Any) -> None:
        assert plan.mode == "check"
        self._take(plan)

    def bring_back(self, stored: Stored, *, mode: str) -> None:
        assert mode == "check"
        self._take(stored)

    def _take(self, plan: object) -> None:
        self.took.append(plan)
        for name, status in ((self.changed, "changed"), (RUNNING, "ok")):
            self.on_event({"event": "result", "id": name, "status": status})


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> Compared:
    found = Compared(RUNNING)
    monkeypatch.setattr(Fleet, "session_for_reading", found.session)
    monkeypatch.setattr(Fleet, "login", lambda *_: None)
    return found


@pytest.mark.parametrize("wanted", [[], Stored(3, "sha256:x", {})])
def test_a_restart_is_not_begun_without_an_answer(
    fleet: Fleet, host: Host, restarts: Compared, wanted: shut_out.Wanted
) -> None:
    with pytest.raises(WouldShutOut, match="restarting it now would shut its nodes out") as refused:
        shut_out.refuse(fleet, host, JOB, wanted, facts(SILENT))
    assert refused.value.exit_code == 6
    assert "not begun: hk1 gets no answer from https://headscale.example.org/verify" in refused.value.what
    assert "port 443: refused" in refused.value.why
    assert "curl -v https://headscale.example.org/verify" in refused.value.next
    assert len(restarts.took) == 1


def test_a_plan_that_leaves_the_relay_running_goes_on(fleet: Fleet, host: Host, restarts: Compared) -> None:
    restarts.changed = "nftables:derpfleet"
    shut_out.refuse(fleet, host, JOB, [], facts(SILENT))
    assert len(restarts.took) == 1


@pytest.mark.parametrize(
    "said",
    [
        *map(facts, ANSWERS), facts("", runs=True), facts("Welcome!"),
        facts(SILENT, runs=False),  # a first deploy shuts nobody out
        DEBIAN_12,
    ],
)
def test_the_plan_is_compared_only_without_an_answer(
    fleet: Fleet, host: Host, restarts: Compared, said: Facts
) -> None:
    shut_out.refuse(fleet, host, JOB, [], said)
    assert restarts.took == []


def test_who_asks_nobody_or_admits_everybody_meanwhile_is_not_asked(fleet: Fleet, host: Host) -> None:
    assert "admission_before" in shut_out.ask(fleet, host).commands
    for relay in ({"open": True}, {"verify_fail_open": True}, {"admission": "keys"}):
        other = host.model_copy(update={"relay": host.relay.model_copy(update=relay)})
        assert shut_out.ask(fleet, other) == NOTHING, relay
