"""The lease of a site's rollouts, while another command has it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from engine.report import Report
from engine.rollout.machine import begin, step
from engine.rollout.state import EventKind, Rollout, RolloutEvent
from engine.session import Locked
from fleet.rollout import lease
from fleet.shared.fleet import Fleet
from inventory.rollout import RolloutPolicy
from tests.control.test_headscale import site_of
from tests.fleet.test_events import EVENTS, wrong
from tests.fleet.test_rollout_wave import Clock

WHO = "the host is locked by ann@desk since 2026-11-29 14:02:11"


def under_way() -> Rollout:
    """Return a rollout whose first host is being cut over."""
    rollout = begin(["hk1", "sg1"], RolloutPolicy(canary=("hk1",)))
    for name in rollout.hosts:
        rollout = step(rollout, RolloutEvent(kind=EventKind.PREPARED, host=name, changes=1, generation=1))
    return rollout


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a fleet whose lease is held for so many tries."""

    def make(tries: int, *, json_lines: bool = False) -> Fleet:
        left = [None] * tries

        def take() -> tuple[int, list[Any]]:
            if left:
                left.pop()
                raise Locked(WHO, why="another run is at work there")
            return 7, []

        @contextmanager
        def session(*_: Any) -> Iterator[Any]:
            yield SimpleNamespace(lease=take)

        monkeypatch.setattr(Fleet, "session_for_reading", session)
        monkeypatch.setattr(lease, "time", Clock())
        monkeypatch.setattr(lease, "last_known", lambda _: (under_way(), 0.0))
        report = Report(json_lines=json_lines, console=Console(file=io.StringIO(), width=300))
        return Fleet(site_of(), report)

    return make


def shown(fleet: Fleet) -> str:
    file = fleet.report.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_second_operator_is_told_whose_it_is_since_when_and_how_far(fleet: Any) -> None:
    with pytest.raises(Locked) as refused, lease.leased(fleet(1), wait_s=0):
        raise AssertionError("it was held")
    error = refused.value
    assert (error.what, error.exit_code) == (WHO, 5)
    far = "wave 1 of 2, 1 waiting, 1 cutting"
    assert error.why == f"a rollout of this site is under way: {far}; its lease ends with it"
    assert "--wait SECONDS" in error.next


def test_one_that_waits_is_told_once_and_goes_on(fleet: Any) -> None:
    site = fleet(3)
    with lease.leased(site, wait_s=60) as held:
        assert held.number == 7
    assert shown(site).count(f"waiting      {WHO}: a rollout of this site is under way: wave 1 of 2") == 1


def test_a_machine_is_told_as_well(fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with lease.leased(fleet(1, json_lines=True), wait_s=60):
        pass
    [event] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(wrong(event, EVENTS["lease_held"])) == []


def test_one_that_cannot_be_read_hides_no_refusal(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = fleet(1)
    monkeypatch.setattr(lease, "last_known", lambda _: None)
    with pytest.raises(Locked) as refused, lease.leased(site, wait_s=1):
        raise AssertionError("it was held")
    assert refused.value.why == "a rollout of this site is under way; its lease ends with it"
