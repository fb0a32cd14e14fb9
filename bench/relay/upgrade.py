"""The client's side of a WebSocket upgrade."""

from __future__ import annotations

import base64
from secrets import token_bytes

from relay.http.websocket import SUBPROTOCOL


def make_key() -> str:
    """Return a new Sec-WebSocket-Key."""
    return base64.b64encode(token_bytes(16)).decode()


def pack_upgrade(host: str, path: str, key: str) -> bytes:
    """Return the request with which a client of DERP asks for the upgrade."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()
