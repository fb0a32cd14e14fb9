"""What keeping the figures costs a relay that many are connected to."""

import asyncio

import pytest

from relay.flags import parse
from relay.keyfile import NodeKey
from relay.server import Relay


@pytest.fixture
def relay():
    """One that has not started, and counts its consistency checks."""
    loop = asyncio.new_event_loop()
    relay = Relay(parse(["-dev"]), loop, NodeKey.generate())
    relay.checks = 0

    def check():
        relay.checks += 1
        return ["odd"]

    relay.switch.consistency_check = check
    yield relay
    loop.close()


def test_totals_check_nothing(relay):
    relay.tally.counts["accepts"] += 3
    assert relay.census.totals()["accepts"] == 3
    assert relay.checks == 0


def test_the_consistency_check_runs_once_a_minute_however_often_one_looks(relay, monkeypatch):
    assert [relay.census.all().problems for _ in range(10)] == [["odd"]] * 10
    assert relay.checks == 1
    monkeypatch.setattr("relay.census.CHECK_EVERY_S", 0)
    relay.census.all()
    assert relay.checks == 2
