"""A connected socket on the relay's loop: what is written leaves at once, or when the kernel takes it.

The names are those of asyncio's transports and buffered protocols, which this stands for where connections come by the
thousand: a third of their memory, and no detour between the loop's `receive` and the receiver.
"""

from __future__ import annotations

import socket
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Final

from relay.io.loop import Loop

HIGH_WATER: Final = 128 * 1024  # bytes that are not the kernel's yet; above, the receiver is told to pause, and to go on at a quarter


class Receiver:
    """Who owns a stream. `buffer` is where its bytes are put."""

    __slots__ = ()
    buffer: memoryview

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes came, more than none."""
        raise NotImplementedError

    def eof_received(self) -> None:
        """No more will come."""
        raise NotImplementedError

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is closed: by its owner if there is no exception."""
        raise NotImplementedError

    def pause_writing(self) -> None:
        """More bytes than the high-water mark wait for the kernel."""

    def resume_writing(self) -> None:
        """No more than a quarter of that do."""


class Stream:
    """Reads for its receiver as soon as it has one."""

    __slots__ = ("_blocked", "_closing", "_events", "_fd", "_high_water", "_loop", "_reading", "_receiver", "_send", "_unsent", "socket")

    def __init__(self, loop: Loop, sock: socket.socket, *, high_water: int = HIGH_WATER) -> None:
        self.socket = sock
        self._high_water = high_water
        self._loop = loop
        self._fd = sock.fileno()  # -1 when it is closed
        self._send = sock.send
        self._unsent: bytearray | None = None
        self._events = 0  # what is waited for
        self._reading = True
        self._blocked = False
        self._closing = False
        self._receiver: Receiver | None = None

    def set_receiver(self, receiver: Receiver) -> None:
        """Who gets what comes from now on. One that comes too late is told that the connection is lost."""
        if self._fd < 0:
            self._loop.call_soon(receiver.connection_lost, ConnectionResetError("before it was handed over"))
            return
        if self._receiver is None:
            self._events = EPOLLIN
        self._receiver = receiver
        self._loop.poller.read(self._fd, (self.socket.recv_into, receiver.buffer, receiver.buffer_updated, self))
        self._wait()
        if self._blocked:
            receiver.pause_writing()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._unsent or b"")

    def write(self, data: bytes | bytearray) -> None:
        """Send after what was written before. Does nothing when the stream is closed."""
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
        """Leave what comes to the kernel."""
        self._reading = False
        self._wait()

    def resume_reading(self) -> None:
        """Read on."""
        self._reading = not self._closing
        self._wait()

    def close(self) -> None:
        """End when everything written has left. Nothing is read any more."""
        self._closing = True
        if self._unsent is None:
            self._end(None)
        else:
            self.pause_reading()

    def abort(self) -> None:
        """End now."""
        self._end(None)

    # What the loop calls; see relay.loop.Reader.

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
        self._loop.tell(error)
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
        """For what there is to wait for now."""
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
