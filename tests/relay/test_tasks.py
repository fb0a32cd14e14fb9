"""Tasks beside the connections.

An unforeseen end is logged, and ends the relay if it needs the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from unittest.mock import Mock

import pytest

from relay.flags import parse
from relay.io.loop import Loop
from relay.keys.node_key import NodeKey
from relay.server import Relay


@pytest.fixture
def relay() -> Iterator[Relay]:
    """Make a relay that has not started."""
    loop = Loop()
    yield Relay(parse(["-dev"]), loop, NodeKey.generate())
    loop.close()


async def _fails() -> None:
    raise OSError(28, "No space left on device")


async def _ends() -> None:
    pass


def _run_for_a_moment(relay: Relay) -> None:
    relay.loop.run_until_complete(asyncio.sleep(0.01))


def test_without_what_it_needs_a_relay_drains_and_fails(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.tasks.keep(_fails())
    relay.loop.run_until_complete(asyncio.wait_for(relay.run(), 5))
    assert relay.tasks.failure == "_fails ended: [Errno 28] No space left on device"
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OSError]


def test_what_has_nothing_more_to_do_may_end(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    relay.tasks.keep(_ends())
    relay.tasks.spawn(_ends())
    _run_for_a_moment(relay)
    assert not relay.tasks.failure
    assert not caplog.records


def test_one_connections_failure_is_logged_and_stops_no_other(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.tasks.spawn(_fails())
    _run_for_a_moment(relay)
    assert not relay.tasks.failure
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OSError]


def test_a_handshake_that_the_end_cuts_is_no_timeout(relay: Relay) -> None:
    """Each refusal counts under the reason that it has."""
    arrival = Mock(deadline=0.0)
    relay.clients.arrivals[arrival] = None
    relay.stop()
    relay.loop.run_until_complete(asyncio.wait_for(relay.run(), 5))
    arrival.give_up.assert_called_once_with("draining")
