"""The end of a way back: its exit code, and the words about a host that is neither old nor new."""

from __future__ import annotations

import io
from typing import Any

import pytest

from engine.login import Unreachable
from engine.run import Job, Verb
from fleet.shared import confirm
from fleet.shared.confirm import STUCK, Confirmation
from fleet.shared.fleet import Fleet
from fleet.shared.verdict import Conclusion
from inventory.errors import DerpfleetError
from tests.fleet.generations import HOST, Armed, outcome
from tests.fleet.test_withdraw import proof


@pytest.mark.parametrize(
    ("ok", "words"),
    [
        (False, "hk1 is NOT proved after the way back, and serves as it can"),
        (True, "hk1 is proved as it is now, but its way back has not ended"),
    ],
)
def test_a_way_back_that_did_not_end_is_said_as_it_is(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, shown: io.StringIO, ok: bool, words: str
) -> None:
    monkeypatch.setattr(confirm, "prove_hosts", lambda *_, **__: {"hk1": proof("hk1", ok=ok)})
    judge = Confirmation(fleet, HOST, None, verdict=Conclusion.FAILED)
    job = Job(verb=Verb.DEPLOY, plan=lambda _: ())
    assert confirm.after_going_back(fleet, HOST, job, outcome(generation=0), judge) == STUCK
    assert words in shown.getvalue()


@pytest.mark.parametrize(
    ("error", "code"),
    [(DerpfleetError("contents of it are gone"), STUCK), (Unreachable("lost"), Unreachable.exit_code)],
)
def test_a_host_that_refuses_the_way_back_is_neither_old_nor_new(
    fleet: Fleet, error: DerpfleetError, code: int
) -> None:
    """One that was lost meanwhile goes back by itself."""
    armed: Any = Armed(3)

    def back() -> bool:
        raise error

    armed.back = back
    failed = outcome()
    failed.stopped = "stopped by the controller"
    with pytest.raises(DerpfleetError) as raised:
        Confirmation(fleet, HOST, None)(failed, armed)
    assert raised.value.exit_code == code
