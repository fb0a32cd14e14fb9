"""What keeping the figures costs a relay that many are connected to."""

from types import SimpleNamespace

import pytest

from relay.census import CHECK_EVERY_S, Census
from relay.stats import Tally
from tests.relay.people import Room


@pytest.fixture
def room(monkeypatch):
    """A room that counts its consistency checks."""
    room = Room()
    room.checks = 0
    check = room.switch.consistency_check

    def counting():
        room.checks += 1
        return check()

    monkeypatch.setattr(room.switch, "consistency_check", counting, raising=False)
    return room


def census_of(room):
    return Census(
        SimpleNamespace(
            switch=room.switch,
            tally=Tally(),
            worker=None,
            loop=SimpleNamespace(time=lambda: room.now),
            stun=(),
            admission=SimpleNamespace(counts={}),
            links={},
            fronts={},
            started_at=0.0,
            front_ok=True,
            rate_limits=SimpleNamespace(bytes_per_s=0, burst_bytes=0),
            certificate=None,
        )
    )


def test_totals_check_nothing(room):
    room.say(room.join(1), 2, b"x")
    assert census_of(room).totals()["packets_received"] == 1
    assert room.checks == 0


def test_the_consistency_check_runs_once_a_minute_however_often_one_looks(room):
    census = census_of(room)
    room.join(1).outbox.current = False
    found = [census.all().problems for _ in range(10)]
    assert found == [[f"{next(iter(room.switch.peers)).hex()} has a wrong active connection"]] * 10
    assert room.checks == 1
    room.now += CHECK_EVERY_S
    census.all()
    assert room.checks == 2
