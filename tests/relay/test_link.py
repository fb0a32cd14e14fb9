"""When a tick writes: at its end, joined, or at once where there is nothing to join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from relay.link import LONE_READS, Link, Tick
from relay.outbox import Outbox
from relay.session import Session
from relay.stats import Tally
from relay.switch import Switch


class World:
    """A tick on a loop that runs what it was given when it is told to; `put` is what a read does."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.written: list[tuple[str, bytes]] = []
        self.ended: list[str] = []
        self.switch = Switch(lambda: 0.0, bytes(32))
        loop = SimpleNamespace(call_soon=self.soon.append, time=lambda: 0.0)
        self.tick = Tick(cast(asyncio.AbstractEventLoop, loop), self.switch, Tally())

    def outbox(self, name: str) -> Outbox:
        link = SimpleNamespace(write=lambda chunk: self.written.append((name, bytes(chunk))), end=self.ended.append)
        outbox = Outbox(self.switch.dirty, self.switch.drop, cast(Link, link))
        outbox.set_current(True)
        return outbox

    def put(self, outbox: Outbox, data: bytes) -> None:
        outbox.put([data], 1)
        if not self.tick.armed:
            self.tick.arm_or_flush()

    def end_tick(self) -> list[tuple[str, bytes]]:
        due, self.soon[:] = self.soon[:], []
        for call in due:
            call()
        written, self.written = self.written, []
        return written


@pytest.fixture
def world() -> World:
    return World()


def test_what_several_reads_of_a_tick_put_leaves_in_one_write(world: World) -> None:
    alice, bob = world.outbox("alice"), world.outbox("bob")
    for _ in range(3):
        world.put(alice, b"1")
        world.put(bob, b"2")
        world.put(alice, b"3")
        assert not world.written
        assert world.end_tick() == [("alice", b"13"), ("bob", b"2")]
    assert world.tick.writes == 6


def test_after_a_tick_with_one_outbox_reads_are_written_at_once(world: World) -> None:
    alice, bob = world.outbox("alice"), world.outbox("bob")
    world.put(alice, b"first")
    assert world.end_tick() == [("alice", b"first")]
    for _ in range(LONE_READS):
        world.put(bob, b"lone")
    assert not world.soon
    assert world.end_tick() == [("bob", b"lone")] * LONE_READS
    world.put(bob, b"1")
    world.put(bob, b"2")
    world.put(alice, b"3")
    assert world.end_tick() == [("bob", b"12"), ("alice", b"3")]
    world.put(bob, b"4")
    assert not world.written  # that tick had two
    assert world.end_tick() == [("bob", b"4")]


def test_a_transport_that_is_closed_already_costs_its_own_connection_alone(world: World) -> None:
    alice, bob, carol = (world.outbox(name) for name in ("alice", "bob", "carol"))

    def refuse(_chunk: bytes) -> None:
        raise RuntimeError("the handler is closed")

    cast(SimpleNamespace, bob.link).write = refuse
    for n in range(2):
        for outbox in (alice, bob, carol):
            world.put(outbox, b"%d" % n)
        bob.special = bool(n)
        assert world.end_tick() == [("alice", b"%d" % n), ("carol", b"%d" % n)]
    assert world.ended == ["write_error", "write_error"]


def test_a_hangup_waits_for_the_end_of_the_tick(world: World) -> None:
    alice = world.outbox("alice")
    world.put(alice, b"first")
    world.end_tick()
    world.switch.hangups.append(cast(Session, SimpleNamespace(outbox=alice, reason="enough")))
    world.put(alice, b"last")
    assert not world.ended
    assert world.end_tick() == [("alice", b"last")]
    assert world.ended == ["enough"]
