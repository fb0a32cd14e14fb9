"""The verdict of an armed plan: who is at fault, and when another try is needed."""

from __future__ import annotations

from itertools import product

import pytest

from fleet.shared.verdict import TRIES, Conclusion, Try, judged

OUTCOMES = [Try(broken, control) for broken, control in product(("", "tcp", "packets"), (True, False, None))]


@pytest.mark.parametrize(
    ("tries", "verdict"),
    [
        ([Try("")], Conclusion.PROVED),
        ([Try("packets", True), Try("")], Conclusion.PROVED),
        ([Try("packets", True)] * 2, None),
        ([Try("packets", True)] * 3, Conclusion.FAILED),
        ([Try("tcp", True)] * 3, Conclusion.FAILED),
        ([Try("packets", False)] * 3, Conclusion.INCONCLUSIVE),
        ([Try("packets", True), Try("packets", True), Try("packets", False)], Conclusion.INCONCLUSIVE),
        ([Try("packets")] * 3, Conclusion.FAILED),
        ([Try("name")] * 3, Conclusion.INCONCLUSIVE),
        ([Try("packets"), Try("packets"), Try("tcp")], Conclusion.INCONCLUSIVE),
        ([], None),
    ],
)
def test_the_verdict(tries: list[Try], verdict: Conclusion | None) -> None:
    assert judged(tries) is verdict


def test_it_always_ends_and_blames_no_host_whose_control_was_not_proved() -> None:
    for tries in product(OUTCOMES, repeat=TRIES):
        verdict = judged(tries)
        assert verdict is not None
        assert (verdict is Conclusion.PROVED) == any(not one.broken for one in tries)
        if any(one.control is False for one in tries):
            assert verdict is not Conclusion.FAILED
