"""Clocks are compared, and the wrong one is named instead of the certificate or a firewall."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.clock import ahead_of, apart
from probe.proof import Proof, Rung
from probe.verify import verify
from tests.probe.authority import DAY
from tests.probe.faulty_servers import answering, saying
from tests.probe.seeding import HASTE, Stage

NOW = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)


def at(ahead: timedelta) -> bytes:
    date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
    return (
        f"HTTP/1.1 200 OK\r\nDate: {date}\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def broken_at(stage: Stage, ahead: timedelta, *, start: timedelta, end: timedelta) -> Rung:
    async def climb() -> Proof:
        async with stage.open:
            issued = stage.issued(start=start, end=end)
            return await verify(await stage.instead(saying(at(ahead)), issued), patience=HASTE)

    broken = asyncio.run(climb()).failed_rung
    assert broken is not None and broken.name == "tls"
    return broken


@pytest.mark.parametrize(
    ("ahead", "start", "end"), [(-200 * DAY, -210 * DAY, -120 * DAY), (2 * DAY, DAY, 90 * DAY)]
)
def test_the_controllers_clock_is_wrong(
    ahead: timedelta, start: timedelta, end: timedelta, stage: Stage
) -> None:
    broken = broken_at(stage, ahead, start=start, end=end)
    assert "this controller's clock is wrong" in broken.cause
    assert broken.next == "timedatectl set-ntp true on this controller, then invoke verify --host hk1"


def test_an_expired_certificate_is_one_by_both_clocks(stage: Stage) -> None:
    assert "not renewed" in broken_at(stage, timedelta(), start=-90 * DAY, end=-DAY).cause


def test_a_silent_stun_is_explained_by_the_hosts_clock(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.web.ahead_of", lambda *_: -timedelta(hours=2))

    async def climb() -> Proof:
        async with stage.open:
            silent = await stage.open.enter_async_context(answering(lambda *_: None))
            return await verify(replace(stage.healthy(), stun_port=silent), patience=HASTE)

    proof = asyncio.run(climb())
    assert proof["probe"].warning == "the relay's clock is 2 hours behind this controller's"
    assert proof["stun4"].status == "failed"
    assert "2 hours behind" in proof["stun4"].cause
    assert proof["stun4"].next.startswith("timedatectl set-ntp true on the relay's host")
    assert proof["stun4"].data == {}  # the packets need not be counted


@given(st.text(max_size=40))
def test_any_date(date: str) -> None:
    assert isinstance(apart(ahead_of(date, NOW)), str)


def test_small_differences_are_none() -> None:
    assert apart(timedelta(minutes=4)) == apart(None) == ""
    assert apart(timedelta(minutes=90)) == "the relay's clock is 90 minutes ahead of this controller's"
