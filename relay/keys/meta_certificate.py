"""The fast start's extra certificate: it gives TLS 1.3 clients the relay's key before HTTP.

A self-signed Ed25519 certificate whose CommonName is `derpkey` + the server key in hex and whose
serial number is DERP's protocol version; it goes after the real chain. The CommonName has 71
characters, over X.520's bound of 64, which most libraries refuse to encode, so the DER is written
by hand here. No key identifiers: with them the monitoring prober would report the certificate as
expiring.
"""

from __future__ import annotations

import base64
import secrets
from datetime import datetime, timedelta, timezone

from nacl.signing import SigningKey

PREFIX = "derpkey"
PROTOCOL_VERSION = 2
VALIDITY = timedelta(days=30)  # before and after the start; clients do not look at it

_SEQUENCE, _SET, _INTEGER, _BIT_STRING, _OCTET_STRING, _OID = 0x30, 0x31, 0x02, 0x03, 0x04, 0x06
_PRINTABLE_STRING, _UTC_TIME, _BOOLEAN, _TAG_0, _TAG_3 = 0x13, 0x17, 0x01, 0xA0, 0xA3
_ID_ED25519, _ID_COMMON_NAME, _ID_BASIC_CONSTRAINTS = b"\x2b\x65\x70", b"\x55\x04\x03", b"\x55\x1d\x13"


def _der(tag: int, *content: bytes) -> bytes:
    """Return one DER element around the content; up to 65,535 bytes."""
    body = b"".join(content)
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + body


def build_meta_cert(server_public: bytes, seed: bytes, not_before: datetime, not_after: datetime) -> bytes:
    """Return the certificate in DER for a 32-byte server key. Times are UTC.

    It is signed with the Ed25519 key of a 32-byte seed.
    """
    key = SigningKey(seed)
    algorithm = _der(_SEQUENCE, _der(_OID, _ID_ED25519))
    common_name = _der(_PRINTABLE_STRING, (PREFIX + server_public.hex()).encode())
    name = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _der(_OID, _ID_COMMON_NAME), common_name)))
    constraints = (_der(_OID, _ID_BASIC_CONSTRAINTS), _der(_BOOLEAN, b"\xff"))
    basic_constraints = _der(_SEQUENCE, *constraints, _der(_OCTET_STRING, _der(_SEQUENCE)))
    times = (t.strftime("%y%m%d%H%M%SZ").encode() for t in (not_before, not_after))
    tbs = _der(
        _SEQUENCE,
        _der(_TAG_0, _der(_INTEGER, b"\x02")),  # X.509 v3
        _der(_INTEGER, bytes((PROTOCOL_VERSION,))),
        algorithm,
        name,
        _der(_SEQUENCE, *(_der(_UTC_TIME, time) for time in times)),
        name,
        _der(_SEQUENCE, algorithm, _der(_BIT_STRING, b"\0", bytes(key.verify_key))),
        _der(_TAG_3, _der(_SEQUENCE, basic_constraints)),
    )
    return _der(_SEQUENCE, tbs, algorithm, _der(_BIT_STRING, b"\0", key.sign(tbs).signature))


def new_meta_cert(server_public: bytes, now_unix_s: float) -> bytes:
    """Return the certificate in DER for this run of the relay. Its signing key is not kept."""
    now = datetime.fromtimestamp(now_unix_s, timezone.utc)
    return build_meta_cert(server_public, secrets.token_bytes(32), now - VALIDITY, now + VALIDITY)


def pem_of(der: bytes) -> str:
    """Return a certificate in PEM, to append to a chain."""
    text = base64.b64encode(der).decode()
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""])
