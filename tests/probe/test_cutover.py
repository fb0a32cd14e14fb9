"""The clients that a restart cut, from what hosts print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.cutover import Admissions, CutOver, admissions_on, clients_on, counted

BEFORE = "derp_clients_local 3\nprocess_start_unix_time 1000.5\n"
# Each line is of the relay that was started at 2000.
BACK = "0 2000.0 2000.20\n2 2000.0 2001.10\n3 2000.0 2001.70\n"


def test_all_come_back() -> None:
    found = counted(BEFORE, BACK)
    assert found == CutOver(cut=3, back=3, seconds=pytest.approx(1.7))
    assert str(found) == "3 clients cut, 3 of them back within 1.7 s of the relay's start"


def test_some_stay_away() -> None:
    found = counted(BEFORE, BACK.splitlines()[1] + "\n1 2000.0 2009.00\n")
    assert found == CutOver(cut=3, back=2, seconds=pytest.approx(1.1))


@pytest.mark.parametrize("watched", ["", "0 2000.0 2012.00\n", "Traceback\n"])
def test_none_come_back(watched: str) -> None:
    found = counted(BEFORE.replace("3", "1"), watched)
    assert found == CutOver(cut=1, back=0, seconds=None)
    assert str(found) == "1 client cut, none came back yet"


def test_more_than_before_are_not_counted_as_cut() -> None:
    assert counted(BEFORE, "9 2000 2001.00\n") == CutOver(cut=3, back=3, seconds=1.0)


@pytest.mark.parametrize("before", ["", BEFORE.replace("3", "0"), "derp_clients_local many\n"])
def test_without_clients_nobody_was_cut(before: str) -> None:
    assert counted(before, BACK) is None


def test_the_same_process_has_cut_nobody() -> None:
    assert counted(BEFORE, "3 1000.5 2001.00\n") is None


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    found = counted(BEFORE, "3 2000.0 1000.00\n")
    assert found and found.seconds == 0


@given(before=st.text(), watched=st.text())
def test_whatever_a_host_prints_is_read(before: str, watched: str) -> None:
    assert clients_on(before) >= 0
    counted(before, watched)
    counted(BEFORE, watched)


ADMISSIONS = """relay_admissions{reason="verify_url_allowed"} 40
relay_admissions{reason="verify_url_refused"} 9
relay_admissions{reason="verify_url_timeout"} 1
relay_admissions{reason="in_prober_keys"} 2
relay_admissions{reason="not_asked"} 3
relay_admissions{reason="a word of later"} 5
"""


def test_refusals_are_a_share_of_the_clients_that_were_asked_for() -> None:
    found = admissions_on(ADMISSIONS)
    assert found == Admissions(asked=50, refused=10)
    assert found.share == 0.2
    # The strangers of two proofs.
    assert admissions_on(ADMISSIONS, strangers=2) == Admissions(asked=48, refused=8)
    assert admissions_on(ADMISSIONS, strangers=99) == Admissions(asked=40, refused=0)


@pytest.mark.parametrize("page", ["", "derp_clients_local 3\n", 'relay_admissions{reason="open"} many\n'])
def test_a_program_that_counts_no_refusals_has_no_share(page: str) -> None:
    assert admissions_on(page) is None
    assert Admissions(0, 0).share == 0
