"""Edges of relays, told once after enough looks; and what lasts, told again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from probe.alerts import Alert, Known, Seen, from_json, judged, to_json, unsent

HOUR = 3600.0


def looks(*results: bool, after: int = 2, step_s: float = 300.0, repeat_s: float = 24 * HOUR) -> list[str]:
    """Return what is told at each look at one relay, "" for nothing."""
    known: dict[str, Known] = {}
    told = []
    for number, ok in enumerate(results, 1):
        seen = [Seen("hk1", ok, "proved" if ok else "BROKEN: TLS")]
        known, alerts = judged(known, seen, after=after, repeat_s=repeat_s, now=number * step_s)
        known = from_json(to_json(known))
        told.append("".join(alert.text for alert in alerts))
    return told


def test_an_edge_is_told_once_after_two_equal_looks() -> None:
    found = looks(True, False, False, False, True, True, True)
    assert found == ["", "", "hk1 is BROKEN: TLS", "", "", "hk1 is proved", ""]


def test_one_that_flaps_or_was_always_well_is_not_told() -> None:
    assert not any(looks(True, False, True, False, True, True, True))
    assert not any(looks(True, True, True))


def test_one_that_is_broken_at_the_first_look_is_told() -> None:
    assert looks(False, False)[1] == "hk1 is BROKEN: TLS"
    assert looks(False, after=1) == ["hk1 is BROKEN: TLS"]


def test_what_lasts_is_told_again() -> None:
    found = looks(*[False] * 7, step_s=HOUR, repeat_s=2 * HOUR)
    assert found[1:] == ["hk1 is BROKEN: TLS", "", "hk1 is still BROKEN: TLS", "",
                         "hk1 is still BROKEN: TLS", ""]  # fmt: skip


def test_what_could_not_be_sent_is_sent_by_the_next_look() -> None:
    seen = [Seen("hk1", ok=False, words="BROKEN: TLS")]
    then, alerts = judged({}, seen, after=1, repeat_s=HOUR, now=1.0)
    again, same = judged(unsent({}, then, alerts), seen, after=1, repeat_s=HOUR, now=2.0)
    assert alerts == same == [Alert("hk1", ok=False, words="BROKEN: TLS")]
    assert judged(again, seen, after=1, repeat_s=HOUR, now=3.0)[1] == []


def test_a_host_that_was_not_looked_at_stays_as_it_is() -> None:
    known = {"sg1": Known(ok=False, looks=2, told=5.0)}
    assert judged(known, [], after=2, repeat_s=HOUR, now=9.0) == (known, [])


@given(st.lists(st.booleans(), max_size=40), st.integers(1, 4))
def test_told_states_alternate_and_are_true(results: list[bool], after: int) -> None:
    told = [(number, text) for number, text in enumerate(looks(*results, after=after)) if text]
    assert all(("BROKEN" in text) != results[number] for number, text in told)
    assert ["BROKEN" in text for _, text in told] == [index % 2 == 0 for index in range(len(told))]
    assert all(len(set(results[number + 1 - after : number + 1])) == 1 for number, _ in told)
