"""The history of proofs, read line by line, and told in days and changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from probe import past
from probe.past import Day, Entry
from tests.probe.test_page import BROKEN, PROVED

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def entry(ago: timedelta, broken: str = "") -> Entry:
    return Entry(NOW - ago, not broken, not broken, broken, 10.0, NOW - ago)


def hours(*results: str) -> list[Entry]:
    """Return a proof an hour, the last one now. Each is the name of its broken rung, or ""."""
    return [entry(timedelta(hours=ago), broken) for ago, broken in enumerate(reversed(results))][::-1]


def test_a_proof_is_a_line_that_is_read_again() -> None:
    [good, bad] = past.entries(past.line(PROVED) + past.line(replace(BROKEN, at="2026-11-22T10:05:00Z")))
    assert (good.ok, good.broken, good.words) == (True, "", "proved")
    assert (bad.ok, bad.broken, bad.words) == (False, "probe", "broken: /derp/probe")
    assert good.at == datetime(2026, 11, 22, 10, tzinfo=UTC)


def test_a_proof_that_was_kept_twice_counts_once_and_as_it_was_last() -> None:
    [one] = past.entries(past.line(PROVED) + past.line(replace(BROKEN, at=PROVED.at)))
    assert one.broken == "probe"


def test_a_torn_line_is_left_out() -> None:
    assert len(past.entries(past.line(PROVED) + past.line(BROKEN)[:30])) == 1
    assert past.entries('null\n{"at": 1}\n[]\n' + "[" * 100_000) == []


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_line_says_since_when_the_relay_is_as_it_is(results: list[bool]) -> None:
    text, last = "", None
    for minute, ok in enumerate(results):
        text += past.line(replace(PROVED if ok else BROKEN, at=f"2026-11-22T10:{minute:02}:00Z"), last)
        last = past.entries(text)[-1]
    back = next((n for n, ok in enumerate(reversed(results)) if ok != results[-1]), len(results))
    assert last is not None
    assert last.since == datetime(2026, 11, 22, 10, len(results) - back, tzinfo=UTC)


def test_changes_are_told_newest_first() -> None:
    found = past.changes(hours("", "", "tls", "tls", "tcp", ""))
    assert [one.words for one in found] == ["proved", "broken: TCP, https port", "broken: TLS", "proved"]


def test_days_are_thirty_and_have_their_state() -> None:
    found = [entry(timedelta(0)), entry(timedelta(days=1), "tls"), entry(timedelta(days=1)),
             entry(timedelta(days=29), "tls"), entry(timedelta(days=30))]  # fmt: skip
    told = list(past.days(sorted(found, key=lambda one: one.at), NOW.date()))
    assert len(told) == 30
    assert told[-1] == Day(date(2026, 11, 29), 1, 0)
    assert [told[0].state, told[1].state, told[-2].state, told[-1].state] == ["bad", "none", "some", "ok"]


def test_old_lines_go_once_a_day() -> None:
    def at(ago: timedelta) -> str:
        return past.line(replace(PROVED, at=(NOW - ago).isoformat()))

    young = at(timedelta(days=89)) + at(timedelta(0))
    assert not past.is_due(at(timedelta(days=90, hours=5)), NOW)
    assert past.is_due(at(timedelta(days=91, hours=1)), NOW)
    assert past.without_old(at(timedelta(days=91)) + young + "{torn", NOW) == young


@given(st.lists(st.sampled_from(["", "tls", "tcp"]), max_size=60))
def test_days_and_changes_miss_no_proof(results: list[str]) -> None:
    found = hours(*results)
    told = list(past.days(found, NOW.date()))
    assert sum(day.proofs for day in told) == len(found)
    assert sum(day.broken for day in told) == sum(bool(one) for one in results)
    assert len(past.changes(found)) == sum(
        now != before for before, now in zip([None, *results], results, strict=False)
    )
