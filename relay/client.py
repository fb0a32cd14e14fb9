"""A DERP client: `Client` turns bytes into events and requests into bytes. No I/O, no clock.

The probe, the tests and the mesh links use it; connection.py drives one over asyncio.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import h11

from relay.core import wire
from relay.core.handshake import ClientInfo, ServerInfo, pack_client_info, parse_server_info
from relay.core.handshake import public_key as public_key_of
from relay.core.reasons import Breach
from relay.core.wire import PeerPresent, ProtocolError

MAX_REFUSAL_BODY: Final = 1024  # as much of a refusal's body as goes into the error
_META_NAME: Final = re.compile(rb"derpkey([0-9a-fA-F]{64})")


class NotUpgraded(ProtocolError):
    """The server answered the upgrade with another status than 101.

    `status` and the first 1 KiB of `body` say why.
    """

    def __init__(self, status: int, body: str) -> None:
        super().__init__(Breach.NOT_UPGRADED)
        self.status = status
        self.body = body

    def __str__(self) -> str:
        return f"HTTP {self.status}: {self.body.strip()}" if self.body else f"HTTP {self.status}"


@dataclass(frozen=True, slots=True)
class Greeted:
    """The server named its key (SERVER_KEY)."""

    server_key: bytes


@dataclass(frozen=True, slots=True)
class Admitted:
    """The server accepted this client (SERVER_INFO)."""

    info: ServerInfo


@dataclass(frozen=True, slots=True)
class Received:
    """A packet from `source`."""

    source: bytes
    packet: bytes


@dataclass(frozen=True, slots=True)
class Alive:
    """A KEEP_ALIVE."""


@dataclass(frozen=True, slots=True)
class Gone:
    """`key` left (wire.GONE_DISCONNECTED) or is not here (wire.GONE_NOT_HERE)."""

    key: bytes
    reason: int


@dataclass(frozen=True, slots=True)
class Present:
    """A client of the relay. Only watchers get these."""

    peer: PeerPresent


@dataclass(frozen=True, slots=True)
class PeerState:
    """Another worker's connections of a client. Only workers of one relay get these."""

    peer: PeerPresent


@dataclass(frozen=True, slots=True)
class Pinged:
    """The server asks for a pong; send `Client.pong(data)`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Ponged:
    """The answer to `Client.ping(data)`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Health:
    """The server's report of a problem with this connection; empty when all is well again."""

    problem: str


@dataclass(frozen=True, slots=True)
class Restarting:
    """The server is about to end; wait, then try for so long."""

    reconnect_in_ms: int
    try_for_ms: int


Event = (
    Greeted | Admitted | Received | Alive | Gone | Present | PeerState | Pinged | Ponged | Health | Restarting
)


def find_meta_key(chain: Iterable[bytes]) -> bytes | None:
    """Return the relay's public key from the meta certificate of a TLS chain, if there is one.

    `chain` has each certificate in DER. Only the first match counts. Trust in it is trust in the
    TLS session it came from.
    """
    for certificate in chain:
        if match := _META_NAME.search(certificate):
            return bytes.fromhex(match[1].decode())
    return None


class Client:
    """One DERP connection seen from the client, without sockets.

    Send `start(host)` first, feed the bytes that arrive to `receive`, and send the bytes that
    `outgoing()` returns after each call. With `server_key` given (known from the meta certificate),
    the upgrade is a fast start: the ClientInfo travels with the HTTP request and no HTTP answer
    comes.
    """

    def __init__(
        self, private_key: bytes, info: ClientInfo | None = None, *, server_key: bytes | None = None
    ) -> None:
        self.private_key = private_key
        self.public_key = public_key_of(private_key)
        self.info = info or ClientInfo()
        self.server_key = server_key
        self._fast = server_key is not None
        self._http: h11.Connection | None = None if self._fast else h11.Connection(h11.CLIENT)
        self._frames = wire.FrameReader()
        self._out = bytearray()

    def start(self, host: str, path: str = "/derp", *, ideal_node: str = "") -> None:
        """Queue the upgrade request for `host` (with `:port` unless it is 443).

        On a fast start, queue the ClientInfo too.
        """
        headers = [("Host", host), ("User-Agent", "derpfleet"), ("Connection", "Upgrade")]
        if self._fast:
            headers.append(("Derp-Fast-Start", "1"))
        if ideal_node:
            headers.append(("Ideal-Node", ideal_node))
        request = h11.Request(method="GET", target=path, headers=[*headers, ("Upgrade", "DERP")])
        writer = self._http or h11.Connection(h11.CLIENT)
        self._out += writer.send(request) or b""
        self._out += writer.send(h11.EndOfMessage()) or b""
        if self.server_key is not None:
            self._introduce(self.server_key)

    def outgoing(self) -> bytes:
        """Return the bytes to be written now. Each byte is returned once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Return the events that `data` completes; b"" means end of stream.

        Raises NotUpgraded when the server does not upgrade. Raises ProtocolError for bytes that are
        not DERP, or a stream that ends before the greeting.
        """
        if self._http is not None:
            upgraded = self._receive_http(self._http, bytes(data))
            if upgraded is None:
                return []
            data = upgraded
        elif not data and self.server_key is None:
            raise ProtocolError(Breach.CLOSED_BEFORE_GREETING)
        events: list[Event] = []
        for kind, payload in self._frames.receive(data):
            event = self._event(kind, payload)
            if event is not None:
                events.append(event)
        return events

    def send(self, destination: bytes, packet: bytes) -> None:
        """Queue a packet of at most 65,536 bytes."""
        if len(packet) > wire.MAX_PACKET:
            raise ValueError(f"a packet has at most {wire.MAX_PACKET} bytes, this one {len(packet)}")
        self._out += wire.pack_send_packet(destination, packet)

    def ping(self, data: bytes) -> None:
        """Queue a ping with 8 bytes."""
        self._out += wire.pack_ping(data)

    def pong(self, data: bytes) -> None:
        """Queue the answer to `Pinged`."""
        self._out += wire.pack_pong(data)

    def watch(self) -> None:
        """Ask for news of every client (mesh peers only)."""
        self._out += wire.WATCH_CONNS_FRAME

    def _introduce(self, server_key: bytes) -> None:
        self._out += pack_client_info(self.private_key, server_key, self.info)

    def _receive_http(self, http: h11.Connection, data: bytes) -> bytes | None:
        """Return the DERP bytes behind the 101 answer, or None while the answer is incomplete."""
        try:
            http.receive_data(data)
            event = http.next_event()
            if event is h11.NEED_DATA:
                return None
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                self._http = None
                return http.trailing_data[0]
            if isinstance(event, h11.Response):
                raise NotUpgraded(event.status_code, _refusal_body(http))
        except h11.RemoteProtocolError:
            raise ProtocolError(Breach.BAD_HTTP_ANSWER) from None
        raise ProtocolError(Breach.CLOSED_BEFORE_GREETING)

    def _event(self, kind: int, payload: bytes) -> Event | None:
        if self.server_key is None and kind != wire.SERVER_KEY:
            raise ProtocolError(Breach.NO_SERVER_KEY)
        if kind == wire.RECV_PACKET:
            return (
                Received(payload[: wire.KEY_LEN], payload[wire.KEY_LEN :])
                if len(payload) >= wire.KEY_LEN
                else None
            )
        if kind == wire.SERVER_KEY:
            return self._greeted(wire.parse_server_key(payload))
        if kind == wire.SERVER_INFO:
            assert self.server_key is not None  # noqa: S101  (checked above; for the type checker)
            return Admitted(parse_server_info(payload, self.private_key, self.server_key))
        return _simple_event(kind, payload)

    def _greeted(self, key: bytes) -> Greeted:
        if self.server_key is None:
            self.server_key = key
            self._introduce(key)
        return Greeted(key)


def _refusal_body(http: h11.Connection) -> str:
    """Return as much of the body as has already arrived."""
    body = b""
    while isinstance(event := http.next_event(), h11.Data):
        body += event.data
    return body[:MAX_REFUSAL_BODY].decode("utf-8", "replace")


def _simple_event(kind: int, payload: bytes) -> Event | None:
    """Return the event of a frame that needs no state.

    Return None for unknown types, and for short frames, as Go's client drops them.
    """
    if kind == wire.KEEP_ALIVE:
        return Alive()
    if kind == wire.HEALTH:
        return Health(payload.decode("utf-8", "replace"))
    if kind in _PARSERS:
        least, parse = _PARSERS[kind]
        return parse(payload) if len(payload) >= least else None
    return None


def _parse_gone(payload: bytes) -> Event:
    return Gone(*wire.parse_peer_gone(payload))


def _parse_present(payload: bytes) -> Event:
    return Present(wire.parse_peer_present(payload))


def _parse_state(payload: bytes) -> Event:
    return PeerState(wire.parse_peer_state(payload))


def _parse_pinged(payload: bytes) -> Event:
    return Pinged(payload[:8])


def _parse_ponged(payload: bytes) -> Event:
    return Ponged(payload[:8])


def _parse_restarting(payload: bytes) -> Event:
    return Restarting(*wire.parse_restarting(payload))


_PARSERS: Final = {
    wire.PEER_GONE: (wire.KEY_LEN, _parse_gone),
    wire.PEER_PRESENT: (wire.KEY_LEN, _parse_present),
    wire.PEER_STATE: (wire.MIN_PEER_STATE, _parse_state),
    wire.PING: (8, _parse_pinged),
    wire.PONG: (8, _parse_ponged),
    wire.RESTARTING: (8, _parse_restarting),
}
