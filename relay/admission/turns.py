"""Turns at asking a program that decides on clients: a few at once in all, and from one network.

A stranger's key costs nothing, so without them a relay would be a load generator against the
tailnet's control server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from relay.core.addresses import network_of

AT_ONCE: Final = 64
OF_ONE_NETWORK: Final = 8


class Turns:
    """At most `at_once` turns in all, and `of_one_network` (an IPv4 address, an IPv6 /64)."""

    def __init__(self, at_once: int = AT_ONCE, of_one_network: int = OF_ONE_NETWORK) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._of_one_network = of_one_network
        self._networks: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def take(self, address: str) -> AsyncIterator[None]:
        """Wait for a turn of this client's address, and hold it."""
        network = network_of(address)
        own = self._networks.get(network)
        if own is None:
            own = self._networks[network] = asyncio.Semaphore(self._of_one_network)
        async with own, self._all:
            yield
