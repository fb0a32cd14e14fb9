"""WebSocket (RFC 6455) around a byte stream, sans-IO: browsers' Tailscale reaches DERP this way.

DERP's bytes travel in binary messages whose borders mean nothing. Payload is passed on as it comes,
frame by frame or in parts, so only an unfinished header or control frame is buffered. No
extensions. One class serves both sides, because the tests' client differs in masking alone. No I/O,
no clock.

A text message ends the connection with 1003, and any breach of the RFC with 1002. A message above
32 KiB ends it with 1009; browsers' clients have the same limit, so messages that we send are no
larger. Of several pings in one read the last is answered.

wsproto does the same at twice the CPU time per packet, and 1.7 kB more per connection
(docs/ARCHITECTURE.md).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from secrets import token_bytes
from typing import Final

SUBPROTOCOL: Final = "derp"
MAX_MESSAGE: Final = 32_768

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
NORMAL, PROTOCOL_ERROR, UNSUPPORTED = 1000, 1002, 1003
INVALID_DATA, POLICY_VIOLATION, TOO_BIG = 1007, 1008, 1009
NO_STATUS = 1005  # a close frame without a code; never on the wire

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN, _MASKED, _MAX_CONTROL = 0x80, 0x80, 125
_SENDABLE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class UpgradeRefused(Exception):
    """A request that is no valid upgrade: answer it with `status`, `headers` and the text."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


def accept_upgrade(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the answer to an upgrade request. Header names are in lower case, as h11 gives them.

    A client that does not offer the subprotocol `derp` gets the answer and, behind it, a close
    frame with 1008, as from derper: test with `offers_derp` and close the connection. Raises
    UpgradeRefused.
    """
    given: dict[str, list[str]] = {}
    for name, value in headers:
        given.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    upgrade = (("Connection", "Upgrade"), ("Upgrade", "websocket"))
    violation = "WebSocket protocol violation:"
    if "upgrade" not in _tokens(given.get("connection")):
        raise UpgradeRefused(426, f"{violation} Connection header does not contain Upgrade", upgrade)
    if "websocket" not in _tokens(given.get("upgrade")):
        raise UpgradeRefused(426, f"{violation} Upgrade header does not contain websocket", upgrade)
    if method != "GET":
        raise UpgradeRefused(405, f"{violation} handshake request method is not GET")
    if given.get("sec-websocket-version") != ["13"]:
        text = "unsupported WebSocket protocol version (only 13 is supported)"
        raise UpgradeRefused(400, text, (("Sec-WebSocket-Version", "13"),))
    keys = [key.strip() for key in given.get("sec-websocket-key", [])]
    if len(keys) != 1 or not _is_key(keys[0]):
        raise UpgradeRefused(400, f"{violation} bad Sec-WebSocket-Key")
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {accept_token(keys[0])}")
    derp = SUBPROTOCOL in _tokens(given.get("sec-websocket-protocol"))
    if derp:
        lines.append(f"Sec-WebSocket-Protocol: {SUBPROTOCOL}")
    answer = "\r\n".join([*lines, "", ""]).encode()
    return answer if derp else answer + pack_close(POLICY_VIOLATION, "client must speak the derp subprotocol")


def offers_derp(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the subprotocol `derp` is offered, exactly."""
    offers = (value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol")
    return SUBPROTOCOL in _tokens(offers)


def accept_token(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key."""
    digest = hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def _tokens(values: Iterable[str] | None) -> set[str]:
    return {token.strip().lower() for value in values or () for token in value.split(",")}


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def pack_close(code: int, reason: str = "", mask: bytes = b"") -> bytes:
    """Return a close frame; a reason that does not fit is cut."""
    return _pack(CLOSE, code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL - 2], mask)


def _pack(opcode: int, payload: bytes | memoryview, mask: bytes = b"") -> bytes:
    """Return one final frame; `mask` is 4 bytes on the client's side, empty on the server's."""
    size = len(payload)
    bit = _MASKED if mask else 0
    if size <= 125:
        head = bytes((_FIN | opcode, bit | size))
    elif size <= 0xFFFF:
        head = bytes((_FIN | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_FIN | opcode, bit | 127)) + size.to_bytes(8, "big")
    return head + mask + apply_mask(payload, mask) if mask else head + payload


def apply_mask(data: bytes | memoryview, mask: bytes) -> bytes:
    """XOR with the repeated mask, as one big number.

    It takes 3 µs for 1,200 bytes, a loop over the bytes 72 µs.
    """
    size = len(data)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


class _Breach(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class WebSocket:
    """One side of a connection after the upgrade: `pack` bytes to send, `feed` bytes that arrived.

    `closed` is 0 while open, then the close code that the peer sent (1005 if it sent none) or that
    we sent. After that send only the bytes that `feed` returned last, and end the connection.
    """

    def __init__(self, *, client: bool = False, max_message: int = MAX_MESSAGE) -> None:
        self.closed = 0
        self._client = client
        self._max = max_message
        self._partial = b""  # an unfinished header or control frame, at most 131 bytes
        self._left = 0  # payload bytes of the current data frame that are still to come
        self._mask = b""  # rotated to fit the payload's next byte
        self._message = -1  # size of the unfinished message so far, -1 between messages

    def pack(self, data: bytes | memoryview) -> bytes:
        """Return binary messages of at most `max_message` bytes that carry `data`."""
        if len(data) <= self._max:
            return _pack(BINARY, data, self._new_mask())
        view = memoryview(data)
        parts = (view[i : i + self._max] for i in range(0, len(data), self._max))
        return b"".join(_pack(BINARY, part, self._new_mask()) for part in parts)

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """Return the frame that ends this side; empty if the connection is closed already."""
        if self.closed:
            return b""
        self.closed = code
        return pack_close(code, reason, self._new_mask())

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return (stream bytes that arrived, bytes to send back). Ignores all input once closed."""
        if self.closed:
            return b"", b""
        buffer = self._partial + data if self._partial else data
        self._partial = b""
        arrived: list[bytes] = []
        pong = b""
        position = 0
        try:
            while position < len(buffer) and not self.closed:
                if self._left:
                    position = self._take_payload(buffer, position, arrived)
                    continue
                end, opcode, control = self._take_header(buffer, position)
                if not end:
                    self._partial = buffer[position:]
                    break
                position = end
                if opcode == PING:
                    pong = _pack(PONG, control, self._new_mask())
                elif opcode == CLOSE:
                    pong += self._answer_close(control)
        except _Breach as breach:
            pong += self.close(breach.code, str(breach))
        return b"".join(arrived), pong

    def _new_mask(self) -> bytes:
        return token_bytes(4) if self._client else b""

    def _take_payload(self, buffer: bytes, position: int, arrived: list[bytes]) -> int:
        """Pass on the bytes of the current data frame; return the position behind them."""
        part = buffer[position : position + self._left]
        size = len(part)
        arrived.append(apply_mask(part, self._mask) if self._mask else part)
        turn = size % 4
        self._mask = self._mask[turn:] + self._mask[:turn]
        self._left -= size
        return position + size

    def _take_header(self, buffer: bytes, position: int) -> tuple[int, int, bytes]:
        """Read one frame's header, or the whole frame if it is a control frame.

        Return (end, opcode, control payload); end is 0 while bytes are missing.
        """
        available = len(buffer) - position
        if available < 2:
            return 0, 0, b""
        first, second = buffer[position], buffer[position + 1]
        opcode = first & 0x0F
        if first & 0x70 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise _Breach(PROTOCOL_ERROR, "reserved bit or opcode")
        if bool(second & _MASKED) is self._client:
            raise _Breach(PROTOCOL_ERROR, "frame masked by a server" if self._client else "frame not masked")
        size = second & 0x7F
        is_control = opcode >= CLOSE
        if is_control and (size > _MAX_CONTROL or not first & _FIN):
            raise _Breach(PROTOCOL_ERROR, "control frame too long or fragmented")
        if opcode == TEXT:
            raise _Breach(UNSUPPORTED, "binary messages only")
        extra = {126: 2, 127: 8}.get(size, 0)
        end = position + 2 + extra + (0 if self._client else 4)
        if len(buffer) < end + (size if is_control else 0):
            return 0, 0, b""
        if extra:
            size = int.from_bytes(buffer[position + 2 : position + 2 + extra], "big")
        mask = b"" if self._client else buffer[end - 4 : end]
        if is_control:
            payload = buffer[end : end + size]
            return end + size, opcode, apply_mask(payload, mask) if mask else payload
        self._begin_data(opcode, size, final=bool(first & _FIN))
        self._mask = mask
        return end, opcode, b""

    def _begin_data(self, opcode: int, size: int, *, final: bool) -> None:
        if (opcode == CONTINUATION) is not (self._message >= 0):
            raise _Breach(PROTOCOL_ERROR, "continuation out of place")
        message = max(self._message, 0) + size
        if message > self._max:
            raise _Breach(TOO_BIG, f"message above {self._max} bytes")
        self._left = size
        self._message = -1 if final else message

    def _answer_close(self, payload: bytes) -> bytes:
        """End both ways; return a close frame with the peer's own code."""
        if not payload:
            self.closed = NO_STATUS
            return _pack(CLOSE, b"", self._new_mask())
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or not (code in _SENDABLE_CODES or 3000 <= code <= 4999):
            raise _Breach(PROTOCOL_ERROR, "bad close code")
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            raise _Breach(INVALID_DATA, "close reason is not UTF-8") from None
        return self.close(code)
