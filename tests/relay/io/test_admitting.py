"""A client from its registration to its admission: the other workers have to know it first."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from relay.core import wire
from relay.core.handshake import ClientInfo
from relay.core.reasons import Close, WhyClosed
from relay.core.session import Session
from relay.core.stats import Tally
from relay.core.switch import Switch
from relay.io.link import Link
from relay.io.loop import Loop
from relay.io.stream import Stream
from relay.io.tick import Tick
from relay.io.tls import Channel
from tests.relay.world import key

SERVER_INFO = wire.pack_frame(wire.SERVER_INFO, b"admitted")


class Office:
    """A relay without sockets. `then` are the calls for when the other workers know."""

    loop = cast(Loop, None)

    def __init__(self) -> None:
        self.switch = Switch(lambda: 0.0, bytes(32))
        self.tick = Tick(lambda: 0.0, lambda _error: None, self.switch, Tally())
        self.then: list[Callable[[], None]] = []

    def when_known(self, then: Callable[[], None]) -> None:
        self.then.append(then)

    def link_ended(self, link: Link, reason: WhyClosed, code: int = 0) -> None:
        assert link.session is not None
        self.switch.unregister(link.session)

    def link_blocked(self, link: Link) -> None:
        raise NotImplementedError

    def link_unblocked(self, link: Link) -> None:
        raise NotImplementedError


class Connection:
    """A registered client, whose `frames` are those that left for it."""

    def __init__(self, office: Office, name: str, rest: bytes = b"") -> None:
        self.office = office
        self.reading: list[str] = []
        self._written = b""
        stream = SimpleNamespace(
            write=self._write,
            set_receiver=lambda _receiver: None,
            abort=lambda: None,
            pause_reading=lambda: self.reading.append("pause"),
            resume_reading=lambda: self.reading.append("resume"),
        )
        self.link = Link(office, cast(Stream, stream), Channel())
        self.session = Session(office.switch, key(name), ClientInfo(), self.link)
        office.switch.register(self.session)
        self.link.start(self.session, SERVER_INFO, rest)

    def _write(self, data: bytes) -> None:
        self._written += data

    def frames(self) -> list[tuple[int, bytes]]:
        self.office.tick.flush()
        written, self._written = self._written, b""
        return wire.FrameReader().receive(written)


@pytest.fixture
def office() -> Office:
    return Office()


def test_a_client_is_admitted_when_the_others_know_it_and_what_came_meanwhile_waits(office: Office) -> None:
    alice = Connection(office, "alice", wire.pack_send_packet(key("bob"), b"early"))
    office.then.pop()()
    assert alice.frames() == [(wire.SERVER_INFO, b"admitted")]
    bob = Connection(office, "bob", wire.pack_send_packet(key("alice"), b"early"))
    packet = wire.pack_send_packet(key("bob"), b"for a newcomer")
    alice.link.receive(packet)
    assert (alice.frames(), bob.frames(), bob.reading) == ([], [], ["pause"])
    office.then.pop()()
    assert bob.frames() == [
        (wire.SERVER_INFO, b"admitted"),
        (wire.RECV_PACKET, key("alice") + b"for a newcomer"),
    ]
    assert bob.reading == ["pause", "resume"]
    assert alice.frames() == [(wire.RECV_PACKET, key("bob") + b"early")]
    assert office.switch.consistency_check() == []


def test_nothing_is_done_for_a_client_that_left_meanwhile(office: Office) -> None:
    alice = Connection(office, "alice", wire.pack_ping(b"12345678"))
    alice.link.end(Close.CLOSED)
    office.then.pop()()
    assert (alice.frames(), alice.reading) == ([], ["pause"])
    assert office.switch.consistency_check() == []
