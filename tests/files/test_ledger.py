"""files/ledger.py: the limits of Let's Encrypt, as its documentation has them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from inventory.checkout import CHECKOUT
from inventory.choices import LETSENCRYPTS

NOW, HOUR = 1_800_000_000, 3600
NAMES = ["hk1.example.org"]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A ledger at a clock that `at` moves."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "files"))
    import ledger

    return ledger.Ledger(str(tmp_path / "orders"), "https://acme.example.org/directory", LETSENCRYPTS)


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW + seconds)


@pytest.mark.parametrize(("outcome", "refill_s"), [("issued", 33.6 * HOUR), ("failed", 12 * 60)])
def test_five_orders_at_once_and_then_one_by_one(
    ledger: Any, monkeypatch: pytest.MonkeyPatch, outcome: str, refill_s: float
) -> None:
    """Let's Encrypt gives one back every 34 hours, or every 12 minutes, not all after a week."""
    at(monkeypatch, 0)
    for _ in range(5):
        assert ledger.refusal(NAMES) == ""
        ledger.note(NAMES, outcome)
    said = ledger.refusal(NAMES)
    [until] = re.findall(r"possible after (\d{4}-\d\d-\d\d \d\d:\d\d) UTC", said)
    assert until == time.strftime("%Y-%m-%d %H:%M", time.gmtime(NOW + refill_s + 60))
    at(monkeypatch, refill_s - 60)
    assert ledger.refusal(NAMES) != ""
    at(monkeypatch, refill_s + 60)
    assert ledger.refusal(NAMES) == ""
    ledger.note(NAMES, outcome)
    assert ledger.refusal(NAMES) != ""


def test_orders_that_are_spread_are_never_refused(ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        at(monkeypatch, number * 34 * HOUR)
        assert ledger.refusal(NAMES) == ""
        ledger.note(NAMES, "issued")


def test_orders_of_a_clock_that_was_ahead_do_not_count(ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 10 * 365 * 24 * HOUR)
    for _ in range(5):
        ledger.note(NAMES, "issued")
    at(monkeypatch, 0)
    assert ledger.refusal(NAMES) == ""


def test_other_names_have_a_limit_of_their_own(ledger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, 0)
    for _ in range(5):
        ledger.note(NAMES, "issued")
    assert ledger.refusal([*NAMES, "more.example.org"]) == ""
