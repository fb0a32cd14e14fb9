"""The bounded cost of a connection over HTTP before its client is admitted; without sockets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.core.stats import Tally
from relay.http import answers, http11
from relay.io.arrival import HTTP_IDLE_S, MAX_UNREAD, Arrival
from tests.relay import vectors as v

REQUEST = b"GET /robots.txt HTTP/1.1\r\nHost: derp.example\r\n\r\n"


class Connection:
    """A stream whose kernel takes nothing while `unsent` is not 0."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.ended: list[str] = []

    def set_receiver(self, receiver: Arrival) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended.append("closed")

    def abort(self) -> None:
        self.ended.append("aborted")


class Office:
    """The relay as an arrival sees it."""

    def __init__(self) -> None:
        self.loop = SimpleNamespace(time=lambda: 1000.0)
        self.handshake_timeout_s = 8.0
        self.arrivals: dict[Arrival, None] = {}
        self.tally = Tally()
        self.addresses = SimpleNamespace(
            enter=lambda _address, _holder, _now: SimpleNamespace(leave=bool, step=float)
        )

    def refuses_connection(self, *, main: bool) -> None:
        return None


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def stream() -> Connection:
    return Connection()


@pytest.fixture
def arrival(office: Office, stream: Connection) -> Arrival:
    pages = http11.Pages(v.SERVER, lambda: "now", lambda peer, _forwarded: peer)
    return Arrival(
        cast(Any, office),
        cast(Any, stream),
        ("192.0.2.7", 5),
        pages=pages,
        answer=answers.answer,
        context=None,
        proxied=False,
    )


def ask(arrival: Arrival, data: bytes) -> None:
    arrival.buffer[: len(data)] = data
    arrival.buffer_updated(len(data))


def test_one_that_asks_and_does_not_read_is_hung_up_on(
    office: Office, arrival: Arrival, stream: Connection
) -> None:
    ask(arrival, REQUEST)
    stream.unsent = MAX_UNREAD
    ask(arrival, REQUEST)
    assert (len(stream.written), stream.ended) == (2, [])
    stream.unsent += 1
    ask(arrival, REQUEST)
    assert len(stream.written) == 2
    assert stream.ended[-1] == "aborted"
    assert office.tally.refusals.by_label() == {"slow_reader": 1}


def test_a_last_answer_that_no_client_reads_does_not_stay(
    office: Office, arrival: Arrival, stream: Connection
) -> None:
    stream.unsent = 100
    ask(arrival, REQUEST * 100)
    assert stream.ended == ["closed"]  # it waits for the answer to leave
    assert [arrival.deadline for arrival in office.arrivals] == [1000.0 + HTTP_IDLE_S]
    arrival.expire()
    assert stream.ended == ["closed", "aborted"]
    arrival.connection_lost(None)
    assert not office.arrivals
    assert office.tally.refusals.by_label() == {"too_many_http_requests": 1}, "counted once"
