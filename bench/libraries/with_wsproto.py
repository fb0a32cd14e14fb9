"""`relay.http.websocket.WebSocket` on wsproto: the same interface, limits and close codes."""

from __future__ import annotations

from wsproto.connection import CLIENT, SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage

from relay.http.websocket import MAX_MESSAGE, NORMAL, TOO_BIG, UNSUPPORTED


class WebSocket:
    """One side of a connection after the upgrade."""

    __slots__ = ("_connection", "_max", "_size", "closed")

    def __init__(self, *, client: bool = False, max_message: int = MAX_MESSAGE) -> None:
        self.closed = 0
        self._connection = Connection(CLIENT if client else SERVER)
        self._max = max_message
        self._size = 0  # of the unfinished message so far

    def pack(self, data: bytes | memoryview) -> bytes:
        """Return binary messages of at most `max_message` bytes that carry `data`."""
        send = self._connection.send
        if len(data) <= self._max:
            return send(BytesMessage(data=data))  # type: ignore[arg-type]  # bytes-like will do, too
        parts = [data[i : i + self._max] for i in range(0, len(data), self._max)]
        return b"".join(send(BytesMessage(data=part)) for part in parts)  # type: ignore[arg-type]  # as above

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """Return the frame that ends this side; empty if the connection is closed already."""
        if self.closed:
            return b""
        self.closed = code
        return self._connection.send(CloseConnection(code=code, reason=reason))

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (stream bytes that arrived, bytes to send back)."""
        if self.closed:
            return b"", b""
        self._connection.receive_data(data)
        arrived: list[bytes] = []
        reply = b""
        for event in self._connection.events():
            if isinstance(event, BytesMessage):
                arrived.append(event.data)
            elif isinstance(event, Ping):
                reply = self._connection.send(event.response())
            if isinstance(event, TextMessage):
                reply += self.close(UNSUPPORTED, "binary messages only")
            elif isinstance(event, Message):
                self._size += len(event.data)
                if self._size > self._max:
                    reply += self.close(TOO_BIG, f"message above {self._max} bytes")
                if event.message_finished:
                    self._size = 0
            elif isinstance(event, CloseConnection):
                reply += self._end(event)
            if self.closed:
                break
        return b"".join(arrived), reply

    def _end(self, event: CloseConnection) -> bytes:
        """Answer the peer's close frame with its code, and a breach with wsproto's code for it."""
        if self._connection.state is ConnectionState.OPEN:
            return self.close(event.code, event.reason or "")
        self.closed = int(event.code)
        return self._connection.send(CloseConnection(code=event.code))
