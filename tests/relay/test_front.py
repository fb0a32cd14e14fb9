"""What a connection over HTTP may cost before anybody is admitted, on a front without sockets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay import http
from relay.front import HTTP_IDLE_S, MAX_UNREAD, Front
from relay.stats import Tally
from tests.relay import vectors as v

REQUEST = b"GET /robots.txt HTTP/1.1\r\nHost: derp.example\r\n\r\n"


class Transport:
    """The kernel takes nothing while `unread` is not 0."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unread = 0
        self.ended: list[str] = []

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return "192.0.2.7", 5

    def get_write_buffer_size(self) -> int:
        return self.unread

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")


class Office:
    """What a front asks of its relay."""

    def __init__(self) -> None:
        self.loop = SimpleNamespace(time=lambda: 1000.0)
        self.handshake_timeout_s = 8.0
        self.fronts: dict[Front, None] = {}
        self.tally = Tally()
        self.addresses = SimpleNamespace(enter=lambda _address: SimpleNamespace(leave=bool))
        self.site = http.Site(v.SERVER, lambda: "now", lambda peer, _forwarded: peer)

    def refuses_connection(self, *, encrypted: bool) -> str:
        return ""


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def front(office: Office, transport: Transport) -> Front:
    front = Front(cast(Any, office), answer=http.answer, context=None, proxied=False)
    front.connection_made(cast(asyncio.Transport, transport))
    return front


def ask(front: Front, data: bytes) -> None:
    front.get_buffer(-1)[: len(data)] = data
    front.buffer_updated(len(data))


def test_one_that_asks_and_does_not_read_is_hung_up_on(office: Office, front: Front, transport: Transport) -> None:
    ask(front, REQUEST)
    transport.unread = MAX_UNREAD
    ask(front, REQUEST)
    assert (len(transport.written), transport.ended) == (2, [])
    transport.unread += 1
    ask(front, REQUEST)
    assert len(transport.written) == 2
    assert transport.ended[-1] == "aborted"
    assert office.tally.labelled["refusals", "slow_reader"] == 1


def test_a_last_answer_that_nobody_reads_does_not_stay_for_ever(office: Office, front: Front, transport: Transport) -> None:
    transport.unread = 100
    ask(front, REQUEST * 100)
    assert transport.ended == ["closed"]  # which waits for the answer to leave
    assert [front.deadline for front in office.fronts] == [1000.0 + HTTP_IDLE_S]
    front.expire()
    assert transport.ended == ["closed", "aborted"]
    front.connection_lost(None)
    assert not office.fronts
    assert not [reason for kind, reason in office.tally.labelled if kind == "refusals"]
