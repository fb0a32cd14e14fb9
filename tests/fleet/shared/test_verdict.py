"""The verdict of an armed plan: who is at fault, and when another try is needed."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from fleet.shared.verdict import (
    HOLDS,
    TRIES,
    Conclusion,
    Evidence,
    Try,
    are_back,
    broken_rungs,
    excused,
    judged,
    objection,
    pause_s,
)
from probe.cutover import Admissions, CutOver
from probe.proof import LADDER, Proof, Rung, Status
from tests.fleet.test_withdraw import proof

RUNGS = ((), ("tcp",), ("packets",), ("tls", "packets"))
OUTCOMES = [Try(broken, control) for broken, control in product(RUNGS, (True, False, None))]
MOST = TRIES * (1 + HOLDS)


def broken(*names: str, control: bool | None = None) -> Try:
    return Try(names, control)


@pytest.mark.parametrize(
    ("tries", "verdict"),
    [
        ([Try()], Conclusion.PROVED),
        ([broken("packets", control=True), Try()], Conclusion.PROVED),
        ([broken("packets", control=True)] * 2, None),
        ([broken("packets", control=True)] * 3, Conclusion.FAILED),
        ([broken("tcp", control=True)] * 3, Conclusion.FAILED),
        ([broken("packets")] * 3, Conclusion.FAILED),
        # Held: our own line may be at fault.
        ([broken("packets", control=False)] * 3, None),
        ([*[broken("packets", control=True)] * 2, broken("packets", control=False)], None),
        ([broken("name")] * 3, None),
        ([broken("packets"), broken("packets"), broken("tcp")], None),
        ([broken("name")] * (MOST - 1), None),
        ([broken("name")] * MOST, Conclusion.INCONCLUSIVE),
        ([broken("packets", control=False)] * MOST, Conclusion.INCONCLUSIVE),
        # The line is there again before the holds are over.
        ([*[broken("tcp")] * 5, Try()], Conclusion.PROVED),
        ([*[broken("tcp", control=False)] * 3, *[broken("tcp", control=True)] * 3], Conclusion.FAILED),
        ([], None),
    ],
)
def test_the_verdict(tries: list[Try], verdict: Conclusion | None) -> None:
    assert judged(tries) is verdict


@pytest.mark.parametrize("excuse", [(), ("tcp",), ("packets",), ("tcp", "tls", "packets")])
def test_every_round_of_tries_has_the_verdict_of_the_rules(excuse: tuple[str, ...]) -> None:
    """Every sequence of three tries, and the same again until all holds are over."""
    for tries in product(OUTCOMES, repeat=TRIES):
        found = judged(tries, excuse)
        last = judged(tries * (1 + HOLDS), excuse)
        controls = [one.control for one in tries]
        if any(not one.broken for one in tries):
            assert found is last is Conclusion.PROVED
            continue
        assert found in (None, last)
        assert last not in (None, Conclusion.PROVED)
        is_excused = all(set(one.broken) <= set(excuse) for one in tries)
        if False in controls:  # no host is blamed, and nothing is kept
            assert (found, last) == (None, Conclusion.INCONCLUSIVE)
        elif is_excused:
            assert found is last is Conclusion.STILL_BROKEN
        elif True in controls:
            assert found is last is Conclusion.FAILED
        else:
            is_ours = any(one.broken[0] == "tcp" for one in tries)
            assert last is (Conclusion.INCONCLUSIVE if is_ours else Conclusion.FAILED)
            assert (found is None) is is_ours


def test_there_is_no_verdict_within_a_round_without_a_proof() -> None:
    for count in range(MOST):
        if count % TRIES:
            assert judged([broken("packets", control=True)] * count) is None


def test_a_hold_lasts_a_minute_and_there_are_three() -> None:
    held = [pause_s([broken("tcp")] * count) for count in range(TRIES, MOST)]
    assert sum(held) == HOLDS * 60
    assert [pause_s([broken("tcp")] * count) for count in (1, 2)] == [5.0, 5.0]


def climbed(**status: Status) -> Proof:
    """Return a proof whose rungs hold but for these."""
    rungs = tuple(Rung(name, status.get(name, "ok")) for name in LADDER)
    return replace(proof("hk1", ok=True), rungs=rungs)


def test_only_what_did_not_hold_before_is_excused() -> None:
    assert excused(climbed()) == frozenset()
    assert excused(climbed(stun6="skipped", packets="failed")) == {"packets"}
    # Not reached: it may have been broken as well.
    unreached: dict[str, Status] = dict.fromkeys(list(LADDER)[2:], "skipped")
    assert excused(climbed(tcp="failed", **unreached)) == set(LADDER) - {"name"}
    # STUN is broken as before, TLS is not.
    assert excused(climbed(stun4="failed")) == {"stun4"}
    worse = Try(broken_rungs(climbed(stun4="failed", tls="failed")))
    assert judged([worse] * 3, excused(climbed(stun4="failed"))) is Conclusion.FAILED


def test_a_higher_rung_is_no_worse() -> None:
    unreached: dict[str, Status] = dict.fromkeys(list(LADDER)[6:], "skipped")
    before = climbed(tls="failed", **unreached)
    for name in list(LADDER)[5:]:
        assert judged([broken(name)] * 3, excused(before)) is Conclusion.STILL_BROKEN
    for name in list(LADDER)[2:5]:
        assert judged([broken(name)] * 3, excused(before)) is Conclusion.FAILED


def test_a_proof_that_reached_no_client_is_broken() -> None:
    assert broken_rungs(climbed(handshake="skipped")) == ("handshake",)
    assert broken_rungs(climbed(tls="failed", packets="failed")) == ("tls", "packets")
    assert broken_rungs(climbed()) == ()


@pytest.mark.parametrize(
    ("cut", "back", "enough"),
    [(0, 0, True), (4, 0, True), (5, 4, False), (5, 5, True), (10, 9, True), (10, 8, False), (99, 90, True)],
)
def test_nine_of_ten_clients_have_to_come_back(cut: int, back: int, enough: bool) -> None:
    clients = CutOver(cut=cut, back=back, seconds=1.0 if back else None)
    assert are_back(clients) is enough
    assert bool(objection(Evidence(clients=clients))) is not enough


def test_nobody_cut_is_no_objection() -> None:
    assert are_back(None)
    assert objection(Evidence()) == ""


def test_another_release_is_an_objection() -> None:
    assert objection(Evidence(other_release="a94b")) == "another release answers: a94b"


@pytest.mark.parametrize(
    ("before", "since", "fine"),
    [
        (Admissions(100, 0), Admissions(100, 5), True),
        (Admissions(100, 0), Admissions(100, 6), False),
        (Admissions(100, 50), Admissions(100, 55), True),
        (Admissions(100, 50), Admissions(100, 56), False),
        (Admissions(0, 0), Admissions(20, 1), True),
        (Admissions(0, 0), Admissions(20, 2), False),
        (Admissions(0, 0), Admissions(19, 19), True),  # too few to say
        (None, Admissions(100, 100), True),  # derper does not count them
        (Admissions(100, 0), None, True),
    ],
)
def test_refusals_must_not_rise(before: Admissions | None, since: Admissions | None, fine: bool) -> None:
    found = objection(Evidence(before=before, since=since))
    assert bool(found) is not fine
    assert fine or "of the clients are refused; before it were" in found


def test_only_a_share_that_rises_by_more_is_an_objection() -> None:
    for before, since in product(range(101), repeat=2):
        said = Evidence(before=Admissions(100, before), since=Admissions(100, since))
        assert bool(objection(said)) is (since > before + 5), (before, since)
