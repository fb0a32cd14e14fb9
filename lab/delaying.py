"""A delaying proxy for blocking code: `lab.delay`'s, run in its own thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from lab.delay import Address, DelayProxy, ProxyCounts

T = TypeVar("T")


class Delaying:
    """A running `DelayProxy`, for blocking callers. Made by `delaying()`."""

    def __init__(self, proxy: DelayProxy, loop: asyncio.AbstractEventLoop) -> None:
        self._proxy, self._loop = proxy, loop

    @property
    def address(self) -> Address:
        """The address to connect to."""
        return self._proxy.address

    @property
    def port(self) -> int:
        """The port of `address`."""
        return self._proxy.address[1]

    def counts(self, *, reset: bool = False) -> ProxyCounts:
        """Return the counts so far; `reset` starts them at zero again."""

        def take() -> ProxyCounts:
            counts = self._proxy.counts
            if reset:
                self._proxy.reset()
            return counts

        return self._call(take)

    def cut(self) -> None:
        """See `DelayProxy.cut`."""
        self._call(self._proxy.cut)

    def freeze(self) -> None:
        """See `DelayProxy.freeze`."""
        self._call(self._proxy.freeze)

    def thaw(self) -> None:
        """See `DelayProxy.thaw`."""
        self._call(self._proxy.thaw)

    def _call(self, work: Callable[[], T]) -> T:
        async def there() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(there(), self._loop).result(10)


@contextlib.contextmanager
def delaying(
    to: Address, *, rtt_s: float, listen: Address = ("127.0.0.1", 0), udp: bool = False
) -> Iterator[Delaying]:
    """Run a delaying proxy to `to` in a thread for the length of a `with` block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="delay", daemon=True)
    thread.start()

    def run(work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(10)

    try:
        proxy = DelayProxy(to, rtt_s=rtt_s, listen=listen, udp=udp)
        run(proxy.__aenter__())
        try:
            yield Delaying(proxy, loop)
        finally:
            run(proxy.__aexit__())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
