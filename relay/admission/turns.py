"""Turns at asking a program that decides on clients: a few at once in all, and from one network.

A stranger's key costs nothing, so without them a relay would be a load generator against the
tailnet's control server.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from relay.core.addresses import network_of

AT_ONCE: Final = 64
OF_ONE_NETWORK: Final = 8


@dataclass
class _Network:
    """The turns that one network holds, and those that it waits for. `asking`: how many ask."""

    asking: int = 0
    held: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Turns:
    """At most `at_once` turns in all, and `of_one_network` (an IPv4 address, an IPv6 /64).

    The last quarter of all is for networks that hold none, and the waiting network that holds the
    fewest is the next. So a few networks with many questions do not keep the others waiting.
    """

    def __init__(self, at_once: int = AT_ONCE, of_one_network: int = OF_ONE_NETWORK) -> None:
        self._free = at_once
        self._last = at_once // 4
        self._of_one_network = of_one_network
        self._networks: dict[str, _Network] = {}  # those that hold or wait; the last served is last

    @asynccontextmanager
    async def take(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn of this client's address, and hold it."""
        name, turn = network_of(address), asyncio.get_running_loop().create_future()
        network = self._networks.setdefault(name, _Network())
        network.asking += 1
        network.waiting.append(turn)
        self._hand_out()
        try:
            await turn
            yield
        finally:
            network.asking -= 1
            if not turn.cancelled():
                network.held -= 1
                self._free += 1
            elif turn in network.waiting:
                network.waiting.remove(turn)
            if not network.asking:
                del self._networks[name]
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and (name := self._next()) is not None:
            network = self._networks[name] = self._networks.pop(name)
            turn = network.waiting.popleft()
            if not turn.cancelled():
                network.held += 1
                self._free -= 1
                turn.set_result(None)

    def _next(self) -> str | None:
        """Return the network whose turn is next. No more are looked at than hold turns, and one."""
        fewest: str | None = None
        for name, network in self._networks.items():
            if network.waiting and network.held < self._of_one_network:
                if not network.held:
                    return name
                if fewest is None or network.held < self._networks[fewest].held:
                    fewest = name
        return fewest if self._free > self._last else None
