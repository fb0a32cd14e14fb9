"""DERP on the wire: frame types, limits, packing and parsing. No I/O, no clock.

The whole protocol in one comment
---------------------------------
A client opens TCP (usually TLS), sends one HTTP request `GET /derp` with `Upgrade: DERP`, gets
`101`, and from then on both sides send frames over the same byte stream:

    type (1 byte) | length (4 bytes, big endian) | payload (length bytes)

    client                                   server
      <------------- SERVER_KEY --------------  magic and the server's public key
      -------------- CLIENT_INFO ------------>  client's public key, nonce, NaCl box of JSON
      <------------- SERVER_INFO -------------  nonce, NaCl box of JSON: the client is admitted
      -------------- SEND_PACKET ------------>  destination key, packet
      <------------- RECV_PACKET -------------  source key, packet
      <------------- KEEP_ALIVE --------------  every 60 to 65 s; clients give up after 120 s
      <----- PING, PONG, NOTE_PREFERRED ----->  signs of life; "you are my home relay"
      <--- PEER_GONE, HEALTH, RESTARTING -----  news for a client

A connection that proves knowledge of the relay's mesh key may also send WATCH_CONNS (and then hears
of every client with PEER_PRESENT and PEER_GONE), FORWARD_PACKET and CLOSE_PEER. Packets are opaque
to the relay: WireGuard or disco, both encrypted end to end. There is no error frame: the answer to
a broken rule is to hang up. Unknown frame types are skipped, so that either side may be older.

A SEND_PACKET and the RECV_PACKET that it becomes have the same length; only the type and the key
differ. The relay's hot path depends on that (session.py).

Sources: derp/derp.go and derp/derpserver of tailscale 1.104.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct
from typing import Final

from relay.core.reasons import Breach

PROTOCOL_VERSION: Final = 2
MAGIC: Final = b"DERP\xf0\x9f\x94\x91"
DISCO_MAGIC: Final = b"TS\xf0\x9f\x92\xac"

KEY_LEN: Final = 32
NONCE_LEN: Final = 24
HEADER_LEN: Final = 5
PACKET_HEAD_LEN: Final = HEADER_LEN + KEY_LEN  # type, length and key of SEND_PACKET and RECV_PACKET
MAX_PACKET: Final = 65_536  # payload behind the keys
MAX_UNKNOWN: Final = MAX_PACKET + KEY_LEN  # a longer frame of unknown type closes
MAX_CLIENT_INFO: Final = 256 * 1024
MIN_CLIENT_INFO: Final = KEY_LEN + NONCE_LEN
MAX_PING: Final = 1000
MAX_TO_CLIENT: Final = 1024 * 1024  # what a client accepts
MAX_RUN: Final = 256 * 1024  # more than what one read of a client leaves at most
MAX_GREETING: Final = 1024  # what a client accepts as SERVER_KEY
MIN_DISCO: Final = 62  # magic, key, nonce
MAX_APP_NAME: Final = 32

SERVER_KEY: Final = 0x01
CLIENT_INFO: Final = 0x02
SERVER_INFO: Final = 0x03
SEND_PACKET: Final = 0x04
RECV_PACKET: Final = 0x05
KEEP_ALIVE: Final = 0x06
NOTE_PREFERRED: Final = 0x07
PEER_GONE: Final = 0x08
PEER_PRESENT: Final = 0x09
FORWARD_PACKET: Final = 0x0A
WATCH_CONNS: Final = 0x10
CLOSE_PEER: Final = 0x11
PING: Final = 0x12
PONG: Final = 0x13
HEALTH: Final = 0x14
RESTARTING: Final = 0x15
# Between the workers of one relay only.
PEER_STATE: Final = 0x7E  # a key's connections to the sender and the newest one's `since`, PEER_PRESENT
FORWARD_RUN: Final = 0x7F  # destination, then RECV_PACKET frames of one source

GONE_DISCONNECTED: Final = 0x00
GONE_NOT_HERE: Final = 0x01

PRESENT_REGULAR: Final = 1
PRESENT_MESH_PEER: Final = 2
PRESENT_PROBER: Final = 4
PRESENT_NOT_IDEAL: Final = 8

HEADER: Final = Struct(">BI")
_PRESENT_FIXED: Final = Struct(">32s16sHBB")
_STATE_FIXED: Final = Struct(">Id")
MIN_PEER_STATE: Final = _STATE_FIXED.size + KEY_LEN
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"

KEEP_ALIVE_FRAME: Final = HEADER.pack(KEEP_ALIVE, 0)
WATCH_CONNS_FRAME: Final = HEADER.pack(WATCH_CONNS, 0)


class ProtocolError(Exception):
    """The peer broke a rule; the only answer is to hang up."""

    def __init__(self, reason: Breach) -> None:
        super().__init__(reason)
        self.reason = reason


def is_disco(packet: bytes | bytearray | memoryview) -> bool:
    """Whether a packet looks like NAT traversal (LooksLikeDiscoWrapper in disco/disco.go)."""
    return len(packet) >= MIN_DISCO and packet[:6] == DISCO_MAGIC


def is_app_name(name: str) -> bool:
    """Whether `name` may be a client's app name: up to 32 characters of printable ASCII."""
    return len(name) <= MAX_APP_NAME and all(" " <= char <= "~" for char in name)


def pack_frame(kind: int, payload: bytes = b"") -> bytes:
    """Pack any frame."""
    return HEADER.pack(kind, len(payload)) + payload


def pack_server_key(public: bytes) -> bytes:
    """Pack the greeting, always the server's first frame."""
    return pack_frame(SERVER_KEY, MAGIC + public)


def parse_server_key(payload: bytes) -> bytes:
    """Return the server's public key out of the greeting's payload.

    Bytes behind it are for future versions.
    """
    if not 40 <= len(payload) <= MAX_GREETING or payload[:8] != MAGIC:
        raise ProtocolError(Breach.BAD_SERVER_KEY)
    return payload[8:40]


def pack_send_packet(destination: bytes, packet: bytes) -> bytes:
    """Pack a client's packet for the server. `packet` is at most MAX_PACKET bytes."""
    return pack_frame(SEND_PACKET, destination + packet)


def pack_ping(data: bytes) -> bytes:
    """Pack a ping, in either direction. `data` is 8 bytes that come back in the pong."""
    return pack_frame(PING, data)


def pack_pong(data: bytes) -> bytes:
    """Pack the answer to a ping with the same 8 bytes."""
    return pack_frame(PONG, data)


def pack_close_peer(key: bytes) -> bytes:
    """Pack a mesh peer's request to hang up on every connection of `key`."""
    return pack_frame(CLOSE_PEER, key)


def pack_peer_gone(key: bytes, reason: int) -> bytes:
    """Pack the news that `key` left (GONE_DISCONNECTED) or was never here (GONE_NOT_HERE)."""
    return pack_frame(PEER_GONE, key + bytes((reason,)))


def parse_peer_gone(payload: bytes) -> tuple[bytes, int]:
    """Return (key, reason). A missing reason means GONE_DISCONNECTED."""
    if len(payload) < KEY_LEN:
        raise ProtocolError(Breach.SHORT_PEER_GONE)
    return payload[:KEY_LEN], payload[KEY_LEN] if len(payload) > KEY_LEN else GONE_DISCONNECTED


def pack_restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    """Pack the notice to wait so long before reconnecting, then to keep trying for so long."""
    return pack_frame(RESTARTING, reconnect_in_ms.to_bytes(4, "big") + try_for_ms.to_bytes(4, "big"))


def parse_restarting(payload: bytes) -> tuple[int, int]:
    """Return (reconnect_in_ms, try_for_ms)."""
    if len(payload) < 8:
        raise ProtocolError(Breach.SHORT_RESTARTING)
    return int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """A client of the relay, as watchers see it. `address` is None and `port` 0 when unknown.

    Only workers of one relay tell each other how many `connections` they have of the key, and when
    the newest connected or took over from another (`since`, of the machine's monotonic clock).
    """

    key: bytes
    address: IPv4Address | IPv6Address | None = None
    port: int = 0
    flags: int = 0
    app_name: str = ""
    connections: int = 1
    since: float = 0.0


def pack_peer_present(peer: PeerPresent) -> bytes:
    """Pack a client for a watcher.

    The layout is that of 1.104: key, IPv6 or mapped IPv4, port, flags, length and text of the app
    name.
    """
    return pack_frame(PEER_PRESENT, _pack_description(peer))


def parse_peer_present(payload: bytes) -> PeerPresent:
    """Parse every layout there was.

    Those are the key alone (32 bytes), with address (50), with flags (51), with app name (52 and
    more).
    """
    size = len(payload)
    if size < KEY_LEN:
        raise ProtocolError(Breach.SHORT_PEER_PRESENT)
    if size < 50:
        return PeerPresent(payload[:KEY_LEN])
    port = int.from_bytes(payload[48:50], "big")
    flags = payload[50] if size > 50 else 0
    name = payload[52 : 52 + payload[51]] if size > 51 else b""
    return PeerPresent(
        payload[:KEY_LEN], _parse_address(payload[32:48]), port, flags, name.decode("ascii", "replace")
    )


def pack_peer_state(peer: PeerPresent) -> bytes:
    """Pack a client for another worker."""
    return pack_frame(PEER_STATE, _STATE_FIXED.pack(peer.connections, peer.since) + _pack_description(peer))


def parse_peer_state(payload: bytes) -> PeerPresent:
    """Parse another worker's PEER_STATE, of at least MIN_PEER_STATE bytes."""
    connections, since = _STATE_FIXED.unpack_from(payload)
    present = parse_peer_present(payload[_STATE_FIXED.size :])
    return replace(present, connections=connections, since=since)


def _pack_description(peer: PeerPresent) -> bytes:
    name = peer.app_name.encode()
    return (
        _PRESENT_FIXED.pack(peer.key, _pack_address(peer.address), peer.port, peer.flags, len(name)) + name
    )


def _pack_address(address: IPv4Address | IPv6Address | None) -> bytes:
    if address is None:
        return b"\0" * 16
    return address.packed if address.version == 6 else _MAPPED + address.packed


def _parse_address(packed: bytes) -> IPv4Address | IPv6Address | None:
    if packed == b"\0" * 16:
        return None
    return ip_address(packed[12:] if packed[:12] == _MAPPED else packed)


class FrameReader:
    """A byte stream, cut into frames.

    For clients and mesh links; the server's reader is session.py.

    A declared length above `limit` raises ProtocolError (FRAME_TOO_LONG) before any of it is kept.
    """

    def __init__(self, limit: int = MAX_TO_CLIENT) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def receive(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """Return (type, payload) of every frame that `data` completes."""
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, bytes]] = []
        start = 0
        while len(buffer) - start >= HEADER_LEN:
            kind, length = HEADER.unpack_from(buffer, start)
            if length > self._limit:
                raise ProtocolError(Breach.FRAME_TOO_LONG)
            end = start + HEADER_LEN + length
            if len(buffer) < end:
                break
            frames.append((kind, bytes(buffer[start + HEADER_LEN : end])))
            start = end
        del buffer[:start]
        return frames
