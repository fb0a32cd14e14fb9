"""files/pause.py: a program is stopped for an order, and started again however the order ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from inventory.checkout import CHECKOUT

DAY = 86400


class Host:
    """A systemd with one unit. `refuses`: the verb that fails."""

    def __init__(self, *, runs: bool, refuses: str = "") -> None:
        self.runs, self.refuses = runs, refuses
        self.ran: list[list[str]] = []

    def run(self, argv: list[str]) -> tuple[int, str]:
        self.ran.append(argv)
        if argv[1] == self.refuses:
            return 1, "Job for other.service failed.\n"
        if argv[1] == "is-active":
            return (0 if self.runs else 3), ""
        self.runs = argv[1] == "start"
        return 0, ""


@pytest.fixture
def pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(CHECKOUT / "files"))
    import pause

    monkeypatch.setattr(pause, "NOTE", str(tmp_path / "note"))
    return pause


def test_a_program_is_stopped_and_started_again_once(pause: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(runs=True)
    monkeypatch.setattr(pause, "run", host.run)
    pause.pause({"stops": "other.service"})
    assert pause.is_made() and not host.runs
    pause.resume()
    assert not pause.is_made() and host.runs
    asked = len(host.ran)
    pause.resume()
    assert len(host.ran) == asked


def test_a_program_that_did_not_run_is_not_started(pause: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(runs=False)
    monkeypatch.setattr(pause, "run", host.run)
    pause.pause({"stops": "other.service"})
    assert pause.is_made()
    pause.resume()
    assert not host.runs and not pause.is_made()


def test_one_that_cannot_be_stopped_is_named(pause: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "run", Host(runs=True, refuses="stop").run)
    with pytest.raises(pause.Problem, match=r"other\.service could not be stopped for the order: Job for"):
        pause.pause({"stops": "other.service"})
    assert pause.is_made()  # systemd may have stopped it in part: it is started again


def test_one_that_does_not_start_again_is_a_loud_failure(pause: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "run", Host(runs=True, refuses="start").run)
    pause.pause({"stops": "other.service"})
    with pytest.raises(pause.Problem, match=r"does NOT start again: Job .*\nchange: journalctl -u other"):
        pause.resume()
    assert not pause.is_made()


@pytest.mark.parametrize(
    ("life", "age", "is_past"), [(90, 59, False), (90, 61, True), (6, 2.9, False), (6, 3.1, True)]
)
def test_it_is_due_by_the_share_of_its_life(pause: Any, life: float, age: float, is_past: bool) -> None:
    now = time.time()
    shown = [time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(at)) for at in
             (now - age * DAY, now + (life - age) * DAY)]  # fmt: skip
    assert pause.is_past(dict(zip(("notBefore", "notAfter"), shown, strict=True))) == is_past
