"""A short lock of another command is waited for, with words."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from engine.report import Report
from engine.session import Locked
from fleet.shared import locks


@pytest.mark.parametrize(("held_s", "free"), [(0, True), (10, True), (115, True), (300, False)])
def test_a_lock_is_waited_for(monkeypatch: pytest.MonkeyPatch, held_s: float, free: bool) -> None:
    now, shown = [0.0], io.StringIO()
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(locks.time, "sleep", lambda s: now.__setitem__(0, now[0] + s))

    def work() -> str:
        if now[0] < held_s:
            raise Locked("the host is locked by me@desk since noon")
        return "done"

    report = Report(console=Console(file=shown, width=200))
    if free:
        assert locks.once_free(report, "headscale", work) == "done"
    else:
        with pytest.raises(Locked):
            locks.once_free(report, "headscale", work)
    words = "headscale  waiting      the host is locked by me@desk since noon; this goes on then"
    assert shown.getvalue().count(words) == (1 if held_s else 0)
    assert now[0] <= locks.WAIT_S
