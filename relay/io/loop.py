"""asyncio's own event loop, on a selector that reads the relay's sockets itself. Linux.

A ready socket of the relay costs one look-up, one receive into a shared buffer and one call;
asyncio makes a handle for each, uvloop a callback through libuv. When every ready socket was read,
`end_of_round` runs, once: it writes the outboxes, with one write per destination. A round that
finds nothing for asyncio goes straight to the next one. Timers, tasks, signals and other modules'
connections are asyncio's.

The same relay on uvloop carried 0.8 to 0.95 of this loop's packets per CPU-second where they come
one by one or in bursts (bench/relay: paced, stock client, modelled trace), and as many where
senders saturate it. It took 3 % more memory per connection and 5 % less CPU time per handshake.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import Context
from select import EPOLLIN, EPOLLOUT, epoll
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    Ts = TypeVarTuple("Ts")

MAX_EVENTS: Final = 1024  # ready sockets of one round; the others get theirs in the next
_ASYNCIO: Final = ((selectors.EVENT_READ, EPOLLIN), (selectors.EVENT_WRITE, EPOLLOUT))


class Reader(Protocol):
    """The owner of a socket that the loop reads."""

    def react(self, event: int) -> bool:
        """React to an epoll event. Return whether bytes are to be read then."""

    def ended(self) -> None:
        """Note that no more bytes come."""

    def lost(self, error: OSError) -> None:
        """Note that the connection broke."""

    def failed(self, error: Exception) -> None:
        """Note that the receiver of the bytes raised an unexpected exception."""


# How one socket is read: the receive, its buffer, the receiver of the count, the owner.
Reading = tuple[Callable[[memoryview], int], memoryview, Callable[[int], None], Reader]


class Poller(selectors.BaseSelector):
    """One epoll for all sockets: asyncio's are reported to it, the relay's are read here.

    `report` gets unexpected exceptions.
    """

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self.interrupted = False  # asyncio has something to run
        # Returns whether the next round must not wait. Must not raise.
        self.end_of_round: Callable[[], bool] = lambda: False
        self._report = report
        self._epoll = epoll()
        self._readings: dict[int, Reading] = {}
        self._calls: dict[int, Callable[[], None]] = {}
        self._keys: dict[int, selectors.SelectorKey] = {}

    # For the relay.

    def read(self, fd: int, reading: Reading) -> None:
        """Read a socket like this from now on, whenever there is something to read."""
        if fd not in self._readings:
            self._epoll.register(fd, EPOLLIN)
        self._readings[fd] = reading

    def watch(self, fd: int, events: int) -> None:
        """Wait for these epoll events on a socket of `read`."""
        self._epoll.modify(fd, events)

    def call(self, fd: int, callback: Callable[[], None]) -> None:
        """Call whenever there is something to read."""
        self._calls[fd] = callback
        self._epoll.register(fd, EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop reading or calling; to be called before the socket is closed.

        Events that epoll has found already are skipped.
        """
        self._readings.pop(fd, None)
        self._calls.pop(fd, None)
        self._epoll.unregister(fd)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Run rounds until asyncio has something to do.

        That is: a socket that it registered is ready, `timeout` seconds have passed, or it was
        interrupted.
        """
        self.interrupted = False
        deadline = None if timeout is None else time.monotonic() + timeout
        ready: list[tuple[selectors.SelectorKey, int]] = []
        again, left = self.end_of_round(), timeout
        while True:
            self._read_all(0 if again or self.interrupted else left, ready)
            again = self.end_of_round()
            if ready or self.interrupted:
                return ready
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return ready

    def _read_all(self, wait: float | None, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        """Run one round: wait, serve the relay's ready sockets, add asyncio's to `ready`."""
        readings = self._readings
        for fd, event in self._epoll.poll(wait, MAX_EVENTS):
            reading = readings.get(fd)
            if reading is None:
                self._other(fd, event, ready)
                continue
            receive, buffer, arrived, reader = reading
            try:
                if event != EPOLLIN and not reader.react(event):
                    continue
                try:
                    size = receive(buffer)
                except BlockingIOError:
                    continue
                except OSError as error:
                    reader.lost(error)
                    continue
                if size:
                    arrived(size)
                else:
                    reader.ended()
            except Exception as error:  # one connection's failure must not end the others
                reader.failed(error)

    def _other(self, fd: int, event: int, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        if callback := self._calls.get(fd):
            try:
                callback()
            except Exception as error:
                self._report(error)
        elif key := self._keys.get(fd):
            mask = selectors.EVENT_READ if event & ~EPOLLOUT else 0
            mask |= selectors.EVENT_WRITE if event & ~EPOLLIN else 0
            ready.append((key, mask & key.events))

    # For asyncio; see selectors.BaseSelector.

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keep(fileobj, events, data)
        self._epoll.register(key.fd, _mask_of(events))
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._keep(fileobj, events, data)
        self._epoll.modify(key.fd, _mask_of(events))
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self._keys.pop(_fd_of(fileobj))
        with suppress(OSError):  # it may be closed already
            self._epoll.unregister(key.fd)
        return key

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_fd_of(fileobj)]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def close(self) -> None:
        self._epoll.close()

    def _keep(self, fileobj: Any, events: int, data: Any) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, _fd_of(fileobj), events, data)
        self._keys[key.fd] = key
        return key


class Loop(asyncio.SelectorEventLoop):
    """The relay's event loop. Its `poller` reads; a new callback or timer ends its rounds."""

    def __init__(self) -> None:
        self.poller = Poller(self.report)
        super().__init__(self.poller)

    def report(self, error: Exception) -> None:
        """Log an unexpected exception."""
        self.call_exception_handler({"message": "a callback failed", "exception": error})

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: Unpack[Ts], context: Context | None = None
    ) -> asyncio.Handle:
        self.poller.interrupted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: Unpack[Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.poller.interrupted = True  # it may be due before all others
        return super().call_at(when, callback, *args, context=context)


def _mask_of(events: int) -> int:
    return sum(mask for event, mask in _ASYNCIO if events & event)


def _fd_of(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())
