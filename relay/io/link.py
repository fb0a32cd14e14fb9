"""The I/O of admitted connections: from the socket to the session, from the outbox to the socket.

Together with session.py, loop.py and tick.py this is the hot path. The loop reads every ready
socket (`buffer_updated`), and sessions put slices into outboxes. When all ready sockets have been
read, `Tick.flush` runs: one joined write per destination, however many sources it has packets from,
and no timer that an idle relay would wait for.

All connections share one read buffer for bytes off the socket, one for plain bytes, and the BIOs of
tls.py. A connection keeps only the unfinished frame at its end, so an idle one costs the same
before and after a burst.
"""

from __future__ import annotations

import ssl
from asyncio import TimerHandle
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from relay.core.outbox import Chunk
from relay.core.reasons import Breach, Close, WhyClosed
from relay.core.wire import MAX_RUN, PACKET_HEAD_LEN, ProtocolError
from relay.http.websocket import WebSocket
from relay.io.stream import Receiver, Stream
from relay.io.tls import CLOSED, INCOMING, OUTGOING, RECORD, Channel, TlsChannel

if TYPE_CHECKING:
    from relay.core.session import Session
    from relay.core.switch import Switch
    from relay.io.loop import Loop
    from relay.io.tick import Tick

READ_SIZE: Final = 128 * 1024
# More than an unfinished frame, or the bytes behind the handshake that a rate limit holds back.
TAIL_SIZE: Final = MAX_RUN + READ_SIZE
ROUND_BYTES: Final = 1024 * 1024  # bytes that wait for the end of the round at most, and one read

CIPHER: Final = memoryview(bytearray(READ_SIZE))
# The bytes left over from the last read are put right before the plain bytes of this one.
_PLAIN: Final = bytearray(TAIL_SIZE + READ_SIZE + RECORD + PACKET_HEAD_LEN)
_PLAIN_VIEW: Final = memoryview(_PLAIN)
# Larger than one read, which may complete a record that OpenSSL has most of.
_PLAIN_WINDOW: Final = _PLAIN_VIEW[TAIL_SIZE:-PACKET_HEAD_LEN]
_take_cipher: Final = OUTGOING.read
_put_cipher: Final = INCOMING.write


class Owner(Protocol):
    """The relay as a link sees it: shared parts, and notices that a link sends it."""

    tick: Tick
    switch: Switch
    loop: Loop

    def when_known(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as every worker knows the clients that are admitted by now."""

    def link_ended(self, link: Link, reason: WhyClosed, code: int = 0) -> None:
        """Unregister the session: the connection is over."""

    def link_blocked(self, link: Link) -> None:
        """Note that the kernel takes no more bytes for now."""

    def link_unblocked(self, link: Link) -> None:
        """Note that the kernel takes bytes again."""


class Link(Receiver):
    """An admitted client on plain TCP (or behind a front that speaks TLS)."""

    __slots__ = (
        "_channel", "_feed", "_owner", "_pause", "_switch", "_tail", "_tick", "_write",
        "keep_alive_s", "session", "stream",
    )  # fmt: skip
    buffer = _PLAIN_WINDOW[:READ_SIZE]

    def __init__(self, owner: Owner, stream: Stream, channel: Channel) -> None:
        self.stream = stream
        self._channel = channel
        self.session: Session | None = None
        self.keep_alive_s = 0.0
        self._owner = owner
        self._tick = owner.tick
        self._switch = owner.switch
        self._tail = b""
        self._pause: TimerHandle | None = None  # ends the pause of a rate limit
        self._write = stream.write

    def start(self, session: Session, server_info: bytes, rest: bytes) -> None:
        """Take over the connection; `rest` arrived behind the handshake.

        The client is admitted, and read, when the other workers know it. Packets for it wait.
        """
        self.session = session
        self._feed: Callable[[bytearray, int, int], int] = session.feed
        self._tail = rest
        self.stream.set_receiver(self)
        session.outbox.block()
        session.outbox.control(server_info)
        self._owner.when_known(self.open)
        if not session.outbox.writable:
            self.stream.pause_reading()
        if self._channel.closed:
            self.end(self._channel.closed)

    def open(self) -> None:
        """Admit the client. Does nothing if the connection has ended."""
        if self.session is not None:
            self.session.outbox.unblock()
            self._resume()

    @property
    def tls_version(self) -> str:
        """Return `1.2` or `1.3`, or "" without TLS."""
        tls = self._channel.tls
        return str(tls.version()).removeprefix("TLSv") if tls is not None else ""

    # Called by the stream.

    def buffer_updated(self, nbytes: int) -> None:
        self._process(nbytes)

    def pause_writing(self) -> None:
        if self.session is not None:
            self.session.outbox.block()
            self._owner.link_blocked(self)

    def resume_writing(self) -> None:
        if self.session is not None:
            self._owner.link_unblocked(self)
            self.session.outbox.unblock()

    def eof_received(self) -> None:
        self.end(CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(Close.CONNECTION_LOST if exc is not None else Close.CLOSED)

    # Called by the relay.

    def write(self, chunk: Chunk) -> None:
        """Write whole frames."""
        self._write(chunk)

    def receive(self, data: bytes) -> None:
        """Process plain bytes that did not come through the read buffer."""
        for start in range(0, len(data), READ_SIZE):
            part = data[start : start + READ_SIZE]
            _PLAIN_WINDOW[: len(part)] = part
            self._process(len(part))

    def close(self) -> None:
        """End with close frames, once everything written has left. Does nothing if it has ended."""
        if self.session is None:
            return
        self._write(self._close_frames())
        self.end(Close.DRAINED, abort=False)

    def _close_frames(self) -> bytes:
        return self._channel.close_notify()

    def end(self, reason: WhyClosed, code: int = 0, *, abort: bool = True) -> None:
        """End the connection. `code` is a WebSocket's close code. Does nothing the second time."""
        if self.session is None:
            return
        self._owner.link_ended(self, reason, code)
        self.session = None
        if abort:
            self.stream.abort()
        else:
            self.stream.close()
        self._let_go()

    def _let_go(self) -> None:
        """Release what is large: senders may remember this connection's outbox for a while."""
        self._channel = Channel()
        self._tail = b""
        if self._pause is not None:
            self._pause.cancel()
        del self._feed

    def _process(self, count: int) -> None:
        """Hand the kept bytes and `count` plain ones to the session; keep the rest."""
        session = self.session
        if session is None:
            return
        tail, start, end = self._tail, TAIL_SIZE, TAIL_SIZE + count
        if tail:
            start -= len(tail)
            _PLAIN[start:TAIL_SIZE] = tail
        try:
            position = self._feed(_PLAIN, start, end)
        except ProtocolError as error:
            self.end(error.reason)
            position = end
        if position < end:
            self._tail = _PLAIN_VIEW[position:end].tobytes()
        elif tail:
            self._tail = b""
        if self._switch.backlog > ROUND_BYTES:
            self._tick.flush()
        if session.wait_s and self._pause is None:
            self.stream.pause_reading()
            self._pause = self._owner.loop.call_later(session.wait_s, self._resume)

    def _resume(self) -> None:
        """Go on: the rate limit lets the next frame pass."""
        self._pause = None
        self._process(0)
        if self._pause is None:
            self.stream.resume_reading()


class TlsLink(Link):
    """An admitted client on TLS.

    Records are opened and sealed here: asyncio's own layer would buffer once more in each
    direction.
    """

    __slots__ = ("_encrypt", "_read")
    buffer = CIPHER

    def __init__(self, owner: Owner, stream: Stream, channel: TlsChannel) -> None:
        super().__init__(owner, stream, channel)
        # The C object's own methods. SSLObject's are a Python call more each: 0.3 µs per packet
        # where each is read alone.
        tls = cast(ssl.SSLObject, getattr(channel.tls, "_sslobj", channel.tls))
        # With a buffer it returns a count.
        self._read = cast(Callable[[int, memoryview], int], tls.read)
        self._encrypt = tls.write

    def buffer_updated(self, nbytes: int) -> None:
        _put_cipher(CIPHER[:nbytes])
        read, end = self._read, 0
        closed: WhyClosed | None = None
        try:
            count = end = read(READ_SIZE, _PLAIN_WINDOW)
            while INCOMING.pending and count:
                count = read(READ_SIZE, _PLAIN_WINDOW[end:])
                end += count
            if not count:
                closed = CLOSED
        except ssl.SSLWantReadError:
            pass  # the record's rest is still to come
        except ssl.SSLError:
            closed = Breach.TLS_ERROR
        if OUTGOING.pending:  # an alert; the next connection must find both BIOs empty
            self._write(_take_cipher())
        if closed:
            INCOMING.read()
        if end:
            self._process(end)
        if closed:
            self.end(closed)

    def write(self, chunk: Chunk) -> None:
        try:
            sent = self._encrypt(chunk)
            while sent != len(chunk):
                sent += self._encrypt(memoryview(chunk)[sent:])
        except ssl.SSLError:
            _take_cipher()
            self.end(Breach.TLS_ERROR)
        else:
            self._write(_take_cipher())

    def _let_go(self) -> None:
        super()._let_go()
        del self._read, self._encrypt


class WebSocketLink(Link):
    """An admitted browser: DERP's bytes in binary messages, on plain TCP or TLS."""

    __slots__ = ("_websocket",)
    buffer = CIPHER

    def __init__(self, owner: Owner, stream: Stream, channel: Channel, websocket: WebSocket) -> None:
        super().__init__(owner, stream, channel)
        self._websocket = websocket

    def buffer_updated(self, nbytes: int) -> None:
        channel = self._channel
        plain = channel.unseal(CIPHER[:nbytes])
        if alert := channel.take_reply():
            self._write(alert)
        arrived, reply = self._websocket.feed(plain)
        if reply and not channel.closed:
            self._write(channel.seal(reply))
        if arrived:
            self.receive(arrived)
        if channel.closed:
            self.end(channel.closed)
        elif self._websocket.closed:
            # A peer that closed reads no more.
            self.end(Close.WEBSOCKET_CLOSED, self._websocket.closed, abort=self.stream.unsent > 0)

    def write(self, chunk: Chunk) -> None:
        try:
            sealed = self._channel.seal(self._websocket.pack(memoryview(chunk)))
        except ssl.SSLError:
            self.end(Breach.TLS_ERROR)
        else:
            self._write(sealed)

    def _close_frames(self) -> bytes:
        return b"".join((self._channel.seal(self._websocket.close(1001)), super()._close_frames()))
