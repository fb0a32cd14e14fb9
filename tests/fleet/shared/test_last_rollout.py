"""How far the last rollout is, as its ledger on the host of the lease says."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from engine.login import Unreachable
from engine.report import Report
from engine.rollout.progress import RolloutProgress
from fleet.shared.fleet import Fleet
from fleet.shared.last_rollout import _LEDGER, last_progress
from inventory.rollout import RolloutPolicy
from tests.control.test_headscale import site_of
from tests.support.facts import DEBIAN_12, EMPTY_FILE

HEAD = {
    "rollout": "x", "who": "ann@desk", "since": 1.0, "hosts": ["hk1"], "policy": RolloutPolicy().model_dump(),
}  # fmt: skip
NOW = "now"  # the tests may begin long after their parameters were read
PAUSED = {"kind": "paused", "why": "our own line"}


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], None),
        (["no JSON"], None),
        ([{"kind": "paused"}], None),
        ([HEAD, {"kind": "paused", "at": "soon"}], None),
        ([HEAD], RolloutProgress.SILENT),
        ([HEAD | {"since": NOW}], RolloutProgress.RUNNING),
        ([HEAD, PAUSED], RolloutProgress.PAUSED),
        ([HEAD, {"kind": "skipped", "host": "hk1"}], RolloutProgress.ENDED),
    ],
)
def test_the_ledger_says_how_far_it_is(
    lines: list[Any], wanted: RolloutProgress | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    text = text.replace(f'"{NOW}"', str(time.time()))
    files = {_LEDGER: replace(EMPTY_FILE, content=text)} if lines else {}
    asked: list[str] = []

    def session(_: Fleet, login: Any, ask: Any) -> Any:
        asked.extend((login.name, *ask.files))
        return nullcontext(SimpleNamespace(facts=replace(DEBIAN_12, files=files)))

    monkeypatch.setattr(Fleet, "session_for_reading", session)
    assert last_progress(Fleet(site_of(), Report())) is wanted
    assert asked == ["headscale", _LEDGER]


def test_a_host_that_cannot_be_asked_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise Unreachable("no route")

    monkeypatch.setattr(Fleet, "session_for_reading", away)
    assert last_progress(Fleet(site_of(), Report())) is None
