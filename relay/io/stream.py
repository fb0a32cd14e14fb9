"""A connected socket on the relay's loop. Writes leave at once, or when the kernel takes them.

The names are those of asyncio's transports and buffered protocols. This replaces them where
connections come by the thousand: a third of their memory, and no detour between the loop's
`receive` and the receiver.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Final

from relay.io.loop import Loop

# Bytes that the kernel has not taken. Above it the receiver has to pause, until a quarter is left.
HIGH_WATER: Final = 128 * 1024


class Receiver(ABC):
    """The owner of a stream, whose bytes are put into `buffer`."""

    __slots__ = ()
    buffer: memoryview

    @abstractmethod
    def buffer_updated(self, nbytes: int) -> None:
        """Take `nbytes` bytes, at least one, from the buffer."""

    @abstractmethod
    def eof_received(self) -> None:
        """Note that no more bytes will come."""

    @abstractmethod
    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the stream is closed: by its owner if there is no exception."""

    def pause_writing(self) -> None:  # noqa: B027 - a receiver that writes little need not pause
        """Note that more bytes than the high-water mark wait for the kernel."""

    def resume_writing(self) -> None:  # noqa: B027 - as above
        """Note that no more than a quarter of the high-water mark waits."""


class Stream:
    """A socket that is read as soon as it has a receiver."""

    __slots__ = (
        "_blocked", "_closing", "_events", "_fd", "_high_water", "_loop", "_reading", "_receiver",
        "_send", "_unsent", "socket",
    )  # fmt: skip

    def __init__(self, loop: Loop, sock: socket.socket, *, high_water: int = HIGH_WATER) -> None:
        self.socket = sock
        self._high_water = high_water
        self._loop = loop
        self._fd = sock.fileno()  # -1 when it is closed
        self._send = sock.send
        self._unsent: bytearray | None = None
        self._events = 0  # the epoll events that are waited for
        self._reading = True
        self._blocked = False
        self._closing = False
        self._receiver: Receiver | None = None

    def set_receiver(self, receiver: Receiver) -> None:
        """Give this receiver everything from now on; `connection_lost` if the stream has ended."""
        if self._fd < 0:
            self._loop.call_soon(receiver.connection_lost, ConnectionResetError("before it was handed over"))
            return
        if self._receiver is None:
            self._events = EPOLLIN
        self._receiver = receiver
        reading = (self.socket.recv_into, receiver.buffer, receiver.buffer_updated, self)
        self._loop.poller.read(self._fd, reading)
        self._wait()
        if self._blocked:
            receiver.pause_writing()

    @property
    def unsent(self) -> int:
        """Return the number of bytes that the kernel has not taken yet."""
        return len(self._unsent or b"")

    def write(self, data: bytes | bytearray) -> None:
        """Send behind all earlier writes. Does nothing when the stream is closed."""
        if self._unsent is None:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:  # also of a socket that is closed
                self.lost(error)
                return
            if sent == len(data):
                return
            self._unsent = bytearray(memoryview(data)[sent:])
            self._wait()
        else:
            self._unsent += data
        if len(self._unsent) > self._high_water and not self._blocked:
            self._blocked = True
            if self._receiver is not None:
                self._receiver.pause_writing()

    def pause_reading(self) -> None:
        """Stop reading; the kernel buffers."""
        self._reading = False
        self._wait()

    def resume_reading(self) -> None:
        """Read again."""
        self._reading = not self._closing
        self._wait()

    def close(self) -> None:
        """End when everything written has left. Reading stops now."""
        self._closing = True
        if self._unsent is None:
            self._end(None)
        else:
            self.pause_reading()

    def abort(self) -> None:
        """End now."""
        self._end(None)

    # Called by the loop; see relay.io.loop.Reader.

    def react(self, event: int) -> bool:
        if self._unsent is not None and event & ~EPOLLIN:
            self._send_more(self._unsent)
        if event & (EPOLLERR | EPOLLHUP) and not self._reading:
            self.lost(ConnectionResetError("while nothing was read"))
        return self._reading and self._fd >= 0

    def ended(self) -> None:
        if self._receiver is not None:
            self._receiver.eof_received()

    def lost(self, error: OSError) -> None:
        self._end(error)

    def failed(self, error: Exception) -> None:
        self._loop.report(error)
        self._end(error)

    def _send_more(self, unsent: bytearray) -> None:
        try:
            sent = self._send(unsent)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(error)
            return
        del unsent[:sent]
        if not unsent:
            self._unsent = None
            if self._closing:
                self._end(None)
                return
            self._wait()
        if self._blocked and len(unsent) <= self._high_water // 4:
            self._blocked = False
            if self._receiver is not None:
                self._receiver.resume_writing()

    def _wait(self) -> None:
        """Wait for the events that matter now."""
        events = (EPOLLIN if self._reading else 0) | (EPOLLOUT if self._unsent is not None else 0)
        if self._receiver is not None and events != self._events:
            self._events = events
            self._loop.poller.watch(self._fd, events)

    def _end(self, error: Exception | None) -> None:
        if self._fd < 0:
            return
        if self._receiver is not None:
            self._loop.poller.forget(self._fd)
            self._loop.call_soon(self._receiver.connection_lost, error)
        self._fd = -1
        self._unsent = self._receiver = None  # the receiver knows us: a cycle
        self.socket.close()
