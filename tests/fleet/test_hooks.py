"""Programs of the site file that a rollout calls: they allow a wave, or hear of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.rollout.state import ActionKind
from fleet import rollout as verb
from fleet.rollout import hooks
from fleet.rollout.wave import allow_wave
from fleet.shared.fleet import Fleet
from inventory.rollout import RolloutHooks
from tests.engine.simulated import NEW
from tests.fleet.test_rollout import POLICY, Desk, desk_of, fleet_of

Programs = Callable[[str, str], tuple[str, ...]]
__all__ = ["desk_of"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Return a function that makes a program beside the site file, and returns its words."""
    monkeypatch.setattr(Fleet, "base", tmp_path)

    def make(name: str, script: str) -> tuple[str, ...]:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return (f"./{name}", "word")

    return make


@pytest.fixture
def desk(desk_of: Any) -> Desk:
    made: Desk = desk_of(fleet_of(4))
    return made


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ('test "$1" = word && test -f ask && read -r line && test "$line" = \'{"a": 1}\'', ""),
        ("exit 0", ""),  # it need not read what it is told
        ("echo the freeze is on; exit 3", "./ask ended with 3: the freeze is on"),
        ("echo out; exec sleep 9", "./ask did not end within 1 s: out"),
        ("kill -9 $$", "./ask ended with -9"),
        ("sleep 2 & exit 0", ""),  # one that goes on in the background is not waited for
    ],
)
def test_a_program_ends_in_time(
    desk: Desk, programs: Programs, monkeypatch: pytest.MonkeyPatch, script: str, trouble: str
) -> None:
    monkeypatch.setattr(hooks, "WITHIN_S", 1.0)
    assert hooks.call(desk.fleet(), programs("ask", script), {"a": 1}) == trouble


def test_one_that_is_not_there_is_named(desk: Desk, programs: Programs) -> None:
    programs("other", "true")
    assert hooks.call(desk.fleet(), ("./ask",), {}) == "./ask cannot be run: No such file or directory"


def test_a_wave_is_begun_once_it_is_allowed(
    desk: Desk, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verb._OF_SEVERAL, ActionKind.ALLOW, allow_wave)  # type: ignore[arg-type]  # of the tests
    ask = programs("ask", "cat >> asked; test -e yes || { echo not yet; exit 1; }")
    told = programs("tell", "cat >> told")
    policy = POLICY.model_copy(update={"hooks": RolloutHooks(before_wave=ask, after_wave=told, ended=told)})
    assert desk.begin(policy) == 6
    assert not any(host.truth == NEW for host in desk.world.hosts.values())
    assert "before wave 1, ./ask ended with 1: not yet" in desk.shown.getvalue()
    (tmp_path / "yes").touch()
    assert desk.resume() == 0
    asked, heard = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("asked", "told")
    )
    assert [(one["hook"], one["number"], one["hosts"]) for one in asked] == [
        ("before_wave", 1, ["h1", "h2"]), ("before_wave", 1, ["h1", "h2"]), ("before_wave", 2, ["h0", "h3"]),
    ]  # fmt: skip
    assert [(one["hook"], one["state"]) for one in heard] == [
        ("ended", "paused"), ("after_wave", "done"), ("after_wave", "done"), ("ended", "ended"),
    ]  # fmt: skip
    assert [one.get("exit") for one in heard] == [6, None, None, 0]


def test_one_that_hears_and_fails_is_only_a_warning(desk: Desk, programs: Programs) -> None:
    told = programs("tell", "exit 1")
    policy = POLICY.model_copy(update={"hooks": RolloutHooks(after_wave=told, ended=told)})
    assert desk.begin(policy) == 0
    assert desk.shown.getvalue().count("a hook failed: ./tell ended with 1") == 3
