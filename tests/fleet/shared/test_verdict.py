"""The verdict of an armed plan: who is at fault, and when another try is needed."""

from __future__ import annotations

from itertools import product

import pytest

from fleet.shared.verdict import TRIES, Try, Verdict, judged

OUTCOMES = [Try(broken, control) for broken, control in product(("", "tcp", "packets"), (True, False, None))]


@pytest.mark.parametrize(
    ("tries", "verdict"),
    [
        ([Try("")], Verdict.PROVED),
        ([Try("packets", True), Try("")], Verdict.PROVED),
        ([Try("packets", True)] * 2, None),
        ([Try("packets", True)] * 3, Verdict.FAILED),
        ([Try("tcp", True)] * 3, Verdict.FAILED),
        ([Try("packets", False)] * 3, Verdict.INCONCLUSIVE),
        ([Try("packets", True), Try("packets", True), Try("packets", False)], Verdict.INCONCLUSIVE),
        ([Try("packets")] * 3, Verdict.FAILED),
        ([Try("name")] * 3, Verdict.INCONCLUSIVE),
        ([Try("packets"), Try("packets"), Try("tcp")], Verdict.INCONCLUSIVE),
        ([], None),
    ],
)
def test_the_verdict(tries: list[Try], verdict: Verdict | None) -> None:
    assert judged(tries) is verdict


def test_it_always_ends_and_blames_no_host_whose_control_was_not_proved() -> None:
    for tries in product(OUTCOMES, repeat=TRIES):
        verdict = judged(tries)
        assert verdict is not None
        assert (verdict is Verdict.PROVED) == any(not one.broken for one in tries)
        if any(one.control is False for one in tries):
            assert verdict is not Verdict.FAILED
