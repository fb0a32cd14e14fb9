"""The cost of the figures for a relay with many clients."""

import asyncio
import json
from pathlib import Path

import pytest

from relay.flags import parse
from relay.io.loop import Loop
from relay.keys.node_key import NodeKey
from relay.mesh.workers import Worker
from relay.server import Relay


@pytest.fixture
def relay():
    """Make a relay that has not started, and counts its consistency checks."""
    loop = Loop()
    relay = Relay(parse(["-dev"]), loop, NodeKey.generate())
    relay.checks = 0

    def check():
        relay.checks += 1
        return ["odd"]

    relay.clients.switch.consistency_check = check
    yield relay
    loop.close()


def test_totals_check_nothing(relay):
    relay.clients.switch.counts.accepts += 3
    assert relay.census.totals().accepts == 3
    assert relay.checks == 0


def test_the_consistency_check_runs_once_a_minute_however_often_one_looks(relay, monkeypatch):
    assert [relay.census.all().problems for _ in range(10)] == [["odd"]] * 10
    assert relay.checks == 1
    monkeypatch.setattr("relay.observe.census.CHECK_EVERY_S", 0)
    relay.census.all()
    assert relay.checks == 2


def test_figures_that_cannot_be_written_now_are_written_later(relay, monkeypatch, tmp_path):
    """A full disk, or no descriptor left, passes; the parent kills a worker that writes no more."""
    monkeypatch.setattr("relay.observe.census.WRITE_EVERY_S", 0.01)
    relay.census.worker = Worker(0, 1, tmp_path / "later", b"", b"")

    async def run():
        writing = asyncio.create_task(relay.census.keep_writing())
        await asyncio.sleep(0.05)
        assert not writing.done()
        relay.census.worker.folder.mkdir()
        await asyncio.sleep(0.1)
        assert json.loads(relay.census.worker.stats_path(0).read_bytes())["gauges"]["handshakes"] == 0
        writing.cancel()

    relay.loop.run_until_complete(run())


def test_the_count_of_descriptors_needs_none(relay, monkeypatch):
    def listdir(_path):
        raise OSError(24, "Too many open files")

    assert relay.census.own().gauges["current_file_descriptors"] == pytest.approx(
        len([*Path("/proc/self/fd").iterdir()]), abs=2
    )
    monkeypatch.setattr("os.listdir", listdir)
    assert relay.census.own().gauges["current_file_descriptors"] >= 256
