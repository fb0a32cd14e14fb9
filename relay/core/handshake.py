"""The handshake's cryptography: NaCl boxes around two small JSON objects. No I/O, no clock.

A node key is 32 bytes of Curve25519. Opening a client's box proves that it holds the private key of
the public key that it claims. The same agreed key then seals the answer, so a handshake costs one
scalar multiplication.

Sources: derp/derp_client.go, derp/derpserver/derpserver.go (recvClientKey, sendServerInfo),
types/key of tailscale.
"""

from __future__ import annotations

import json
from binascii import unhexlify
from dataclasses import dataclass
from typing import Final

from nacl.bindings import (
    crypto_box_afternm,
    crypto_box_beforenm,
    crypto_box_open_afternm,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError
from nacl.utils import random as random_bytes

from relay.core.reasons import Breach
from relay.core.wire import (
    CLIENT_INFO,
    HEADER,
    HEADER_LEN,
    KEY_LEN,
    MAX_CLIENT_INFO,
    MIN_CLIENT_INFO,
    NONCE_LEN,
    PROTOCOL_VERSION,
    SERVER_INFO,
    ProtocolError,
    is_app_name,
    pack_frame,
)
from relay.golang.json import parse_members

ZERO_KEY: Final = bytes(KEY_LEN)


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client's description of itself. `mesh_key` is None for an ordinary client."""

    version: int = PROTOCOL_VERSION
    mesh_key: bytes | None = None
    can_ack_pings: bool = False
    is_prober: bool = False
    app_name: str = ""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server's answer to an admitted client.

    A rate of 0 is no limit; a burst below 65,573 makes clients drop.
    """

    version: int = PROTOCOL_VERSION
    rate_bytes_per_s: int = 0
    burst_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Introduction:
    """An opened ClientInfo frame.

    `shared` is the key agreed with this client, for `pack_server_info`.
    """

    key: bytes
    info: ClientInfo
    shared: bytes


def make_private_key() -> bytes:
    """Return a new private key, clamped as Tailscale clamps them."""
    raw = bytearray(random_bytes(KEY_LEN))
    raw[0] &= 248
    raw[31] = (raw[31] & 127) | 64
    return bytes(raw)


def public_key(private: bytes) -> bytes:
    """Return the public key of a private one."""
    return bytes(crypto_scalarmult_base(private))


def format_key(public: bytes) -> str:
    """Format a key as `nodekey:<64 hex>`, as admission requests, LocalAPI and logs have it."""
    return "nodekey:" + public.hex()


def parse_hex_key(text: str, prefix: str = "") -> bytes:
    """Return the 32 bytes of `<prefix><64 hex digits>`, in either case.

    Raises ValueError, without repeating the text.
    """
    if not text.startswith(prefix):
        raise ValueError(f"does not start with {prefix}")
    digits = text[len(prefix) :]
    if len(digits) != 2 * KEY_LEN:
        raise ValueError(f"has {len(digits)} hex digits, not 64")
    try:
        return unhexlify(digits)  # bytes.fromhex would skip white space inside
    except ValueError:
        raise ValueError("is not hexadecimal") from None


def agree(public: bytes, private: bytes) -> bytes:
    """Return the key of all boxes between two parties.

    Raises ProtocolError (BAD_KEY) for the zero key and low-order points.
    """
    if public == ZERO_KEY:
        raise ProtocolError(Breach.BAD_KEY)
    try:
        return bytes(crypto_box_beforenm(public, private))
    except (CryptoError, RuntimeError):
        raise ProtocolError(Breach.BAD_KEY) from None


def pack_client_info(
    private: bytes, server_public: bytes, info: ClientInfo, nonce: bytes | None = None
) -> bytes:
    """Pack the client's first frame. `nonce` is random unless a test vector gives one."""
    fields: dict[str, object] = {}
    if info.mesh_key is not None:
        fields["meshKey"] = info.mesh_key.hex()
    fields |= {"version": info.version, "CanAckPings": info.can_ack_pings}
    if info.is_prober:
        fields["IsProber"] = True
    if info.app_name:
        fields["AppName"] = info.app_name
    return pack_frame(CLIENT_INFO, public_key(private) + _seal(agree(server_public, private), fields, nonce))


def cut_client_info(stream: bytes | bytearray) -> bytes | None:
    """Return the payload of the CLIENT_INFO frame that a client's stream begins with.

    Return None while it is incomplete. Its frame ends HEADER_LEN + len(payload) bytes into the
    stream. Raises ProtocolError, at the header already: NO_CLIENT_INFO, BAD_CLIENT_INFO_LENGTH.
    """
    if len(stream) < HEADER_LEN:
        return None
    kind, length = HEADER.unpack_from(stream)
    if kind != CLIENT_INFO:
        raise ProtocolError(Breach.NO_CLIENT_INFO)
    if not MIN_CLIENT_INFO <= length <= MAX_CLIENT_INFO:
        raise ProtocolError(Breach.BAD_CLIENT_INFO_LENGTH)
    return bytes(stream[HEADER_LEN : HEADER_LEN + length]) if len(stream) >= HEADER_LEN + length else None


def parse_client_info(payload: bytes, private: bytes) -> Introduction:
    """Open a client's introduction. `payload` is the frame's; `private` is the server's key.

    Raises ProtocolError: BAD_CLIENT_INFO_LENGTH, BAD_KEY, BAD_BOX, BAD_CLIENT_INFO, BAD_APP_NAME.
    """
    if not MIN_CLIENT_INFO <= len(payload) <= MAX_CLIENT_INFO:
        raise ProtocolError(Breach.BAD_CLIENT_INFO_LENGTH)
    key = payload[:KEY_LEN]
    shared = agree(key, private)
    return Introduction(key, decode_client_info(_open(shared, payload[KEY_LEN:])), shared)


def pack_server_info(shared: bytes, info: ServerInfo, nonce: bytes | None = None) -> bytes:
    """Pack the server's second frame, for the client that `shared` was agreed with."""
    fields: dict[str, object] = {"version": info.version}
    if info.rate_bytes_per_s:
        fields |= {
            "TokenBucketBytesPerSecond": info.rate_bytes_per_s,
            "TokenBucketBytesBurst": info.burst_bytes,
        }
    return pack_frame(SERVER_INFO, _seal(shared, fields, nonce))


def parse_server_info(payload: bytes, private: bytes, server_public: bytes) -> ServerInfo:
    """Open the server's answer to this client.

    Raises ProtocolError: BAD_KEY, BAD_BOX, BAD_SERVER_INFO.
    """
    text = _open(agree(server_public, private), payload)
    try:
        fields = parse_members(text)
        return ServerInfo(
            _integer(fields.get("version")),
            _integer(fields.get("tokenbucketbytespersecond")),
            _integer(fields.get("tokenbucketbytesburst")),
        )
    except ValueError:
        raise ProtocolError(Breach.BAD_SERVER_INFO) from None


def decode_client_info(text: bytes) -> ClientInfo:
    """Decode ClientInfo from its JSON, as leniently as Go's decoder.

    That takes any letter case, unknown members, and `null` for absent. A mesh key of the wrong
    length and a member of the wrong type are refused. A wrong mesh key is not: its owner is an
    ordinary client. Raises ProtocolError: BAD_CLIENT_INFO, BAD_APP_NAME.
    """
    try:
        fields = parse_members(text)
        mesh_key = parse_mesh_key(_text(fields["meshkey"], null=False)) if "meshkey" in fields else None
        info = ClientInfo(
            version=_integer(fields.get("version")),
            mesh_key=None if mesh_key == ZERO_KEY else mesh_key,
            can_ack_pings=_boolean(fields.get("canackpings")),
            is_prober=_boolean(fields.get("isprober")),
            app_name=_text(fields.get("appname")),
        )
    except ValueError:
        raise ProtocolError(Breach.BAD_CLIENT_INFO) from None
    if not is_app_name(info.app_name):
        raise ProtocolError(Breach.BAD_APP_NAME)
    return info


def parse_mesh_key(text: str) -> bytes:
    """Return 32 bytes from 64 hex digits, white space around them allowed. Raises ValueError."""
    return parse_hex_key(text.strip())


def _seal(shared: bytes, fields: dict[str, object], nonce: bytes | None) -> bytes:
    nonce = nonce or random_bytes(NONCE_LEN)
    text = _ENCODER.encode(fields).encode()
    return nonce + bytes(crypto_box_afternm(text, nonce, shared))


def _open(shared: bytes, sealed: bytes) -> bytes:
    if len(sealed) < NONCE_LEN:
        raise ProtocolError(Breach.BAD_BOX)
    try:
        return bytes(crypto_box_open_afternm(sealed[NONCE_LEN:], sealed[:NONCE_LEN], shared))
    except (CryptoError, ValueError):
        raise ProtocolError(Breach.BAD_BOX) from None


def _integer(value: object) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not an integer")
    return value


def _boolean(value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise ValueError("not a boolean")
    return bool(value)


def _text(value: object, *, null: bool = True) -> str:
    if value is None and null:
        return ""
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


# Made once: json.dumps with options makes a new one for each call.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
