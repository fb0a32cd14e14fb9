"""When the loop's rounds write: at their end, one joined write for each destination."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast
from unittest.mock import Mock

import pytest

from relay.core.outbox import Outbox
from relay.core.reasons import Close
from relay.core.session import Session
from relay.core.stats import Tally
from relay.core.switch import Switch
from relay.io.link import Link
from relay.io.tick import Tick


class World:
    """A tick without a loop; `put` is what a read does."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.ended: list[str] = []
        self.reported: list[Exception] = []
        self.switch = Switch(lambda: 0.0, bytes(32))
        self.tick = Tick(lambda: 0.0, self.reported.append, self.switch, Tally())

    def outbox(self, name: str) -> Outbox:
        link = SimpleNamespace(
            write=lambda chunk: self.written.append((name, bytes(chunk))), end=self.ended.append
        )
        outbox = Outbox(self.switch.dirty, self.switch.drop, cast(Link, link))
        outbox.set_current(True)
        return outbox

    def flush(self) -> list[tuple[str, bytes]]:
        assert not self.tick.flush()
        written, self.written = self.written, []
        return written


@pytest.fixture
def world() -> World:
    return World()


def test_what_several_reads_of_a_round_put_leaves_in_one_write(world: World) -> None:
    alice, bob = world.outbox("alice"), world.outbox("bob")
    for _ in range(3):
        alice.put([b"1"], 1)
        bob.put([b"2"], 1)
        alice.put([b"3"], 1)
        assert not world.written
        assert world.flush() == [("alice", b"13"), ("bob", b"2")]
    assert world.switch.counts.writes == 6
    assert world.flush() == []


def test_what_a_receiver_may_take_at_once_is_bounded_and_the_rest_follows(world: World) -> None:
    alice = world.outbox("alice")
    alice.block()
    for n in range(4):
        alice.queue(bytes([5, 0, 0, 250, 32 + n]).ljust(64037, b"."), 64037, b"s" * 32, 0.0)
    alice.unblock()
    assert world.tick.flush(), "more is to be written before the loop waits"
    assert len(world.written) == 1
    assert not world.tick.flush()
    assert sum(len(chunk) for _, chunk in world.written) == 4 * 64037


def test_a_hangup_waits_for_the_end_of_the_round(world: World) -> None:
    alice = world.outbox("alice")
    world.switch.hangups[cast(Session, Mock(outbox=alice))] = Close.STOPPED
    alice.put([b"last"], 1)
    assert not world.ended
    assert world.flush() == [("alice", b"last")]
    assert world.ended == [Close.STOPPED]


def test_a_connection_that_cannot_be_written_costs_no_other_packets(world: World) -> None:
    alice, bob, carol = (world.outbox(name) for name in ("alice", "bob", "carol"))

    def fail(_chunk: bytes) -> None:
        raise ZeroDivisionError

    cast(SimpleNamespace, bob.link).write = fail
    for special in (False, True):
        for outbox in (alice, bob, carol):
            outbox.put([b"x"], 1)
        bob.special = special
        assert world.flush() == [("alice", b"x"), ("carol", b"x")]
    assert world.ended == ["failed", "failed"]
    assert [type(error) for error in world.reported] == [ZeroDivisionError] * 2
