"""Every proof is kept for 90 days, also when two commands prove at once or one is killed."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from engine.report import Report
from fleet import history
from fleet.shared import past, prove
from fleet.shared.fleet import Fleet
from probe.past import entry, line
from tests.control.test_headscale import site_of
from tests.fleet.test_others import shown as shown_by
from tests.fleet.test_others import with_others
from tests.probe.test_page import BROKEN, PROVED


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(Fleet, "runs", tmp_path)
    return Fleet(with_others(site_of()), Report(console=Console(file=io.StringIO(), width=400)))


def at(ago: timedelta) -> str:
    return (datetime.now(UTC) - ago).isoformat()


def test_a_proof_that_is_kept_is_in_the_history(fleet: Fleet) -> None:
    prove.keep(fleet, "hk1", PROVED)
    prove.keep(fleet, "hk1", replace(BROKEN, at="2026-11-22T10:05:00Z"))
    assert [one.broken for one in past.entries(fleet, "hk1")] == ["", "probe"]
    assert past.entries(fleet, "sg1") == []


def test_two_commands_at_once_lose_no_proof(fleet: Fleet) -> None:
    def keep(minute: int) -> None:
        for second in range(20):
            past.add(fleet, "hk1", replace(PROVED, at=f"2026-11-22T10:{minute:02}:{second:02}Z"))

    both = [threading.Thread(target=keep, args=(minute,)) for minute in (1, 2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert len(past.entries(fleet, "hk1")) == 40


def test_old_proofs_go_and_a_torn_line_as_well(fleet: Fleet) -> None:
    path = fleet.runs / "history" / "hk1.jsonl"
    path.parent.mkdir()
    young = line(replace(PROVED, at=at(timedelta(days=3))))
    path.write_text(line(replace(PROVED, at=at(timedelta(days=92)))) + young + '{"at": "20')
    new = replace(PROVED, at=at(timedelta(0)))
    past.add(fleet, "hk1", new)
    assert path.read_text() == young + line(new, entry(young))
    assert past.entries(fleet, "hk1")[-1].since == past.entries(fleet, "hk1")[0].at


def test_a_history_tells_how_it_proved_also_of_a_relay_of_others(fleet: Fleet) -> None:
    past.add(fleet, "sg1", PROVED)
    history.history(fleet, [fleet.site.hosts["sg1"]])
    assert "proofs       1 proof in 90 days, 0 of them broken" in shown_by(fleet)
    past.add(fleet, "sg1", replace(BROKEN, at="2026-11-22T10:05:00Z"))
    assert history.history(fleet, [fleet.site.hosts["sg1"]]) == 0
    shown = shown_by(fleet)
    assert "managed: false, somebody else runs it: there are only proofs of it" in shown
    assert "broken       2026-11-22 10:05 UTC  broken: /derp/probe" in shown
    assert "ok           2026-11-22 10:00 UTC  proved" in shown
    assert "proofs       2 proofs in 90 days, 1 of them broken" in shown
