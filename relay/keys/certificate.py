"""A certificate's names and times. Reads just that much of X.509's DER.

`cryptography` could read the same, but makes a relay's start slower by a quarter (measured: 51 ms
of CPU).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from ipaddress import ip_address
from typing import Final

_SEQUENCE, _TAG_0, _TAG_3, _OCTET_STRING, _OID = 0x30, 0xA0, 0xA3, 0x04, 0x06
_UTC_TIME, _GENERALIZED_TIME, _DNS_NAME, _IP_ADDRESS = 0x17, 0x18, 0x82, 0x87
_ID_ALTERNATIVE_NAME: Final = b"\x55\x1d\x11"
_FIRST_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True)
class CertInfo:
    """`names` are DNS names in lower case and addresses as text; times are Unix seconds."""

    names: tuple[str, ...]
    not_before: float
    not_after: float

    def is_for(self, hostname: str) -> bool:
        """Whether the certificate is valid for this name or address; `*.` matches one label."""
        wanted = _normal(hostname)
        _, dot, parent = wanted.partition(".")
        return wanted in self.names or bool(dot and f"*.{parent}" in self.names)


def first_certificate(pem: str) -> bytes:
    """Return the leaf of a chain in PEM, as DER. Raises ValueError."""
    match = _FIRST_CERTIFICATE.search(pem)
    if match is None:
        raise ValueError("no certificate in this PEM text")
    return base64.b64decode(match[1])


def parse_certificate(der: bytes) -> CertInfo:
    """Parse a certificate in DER. Raises ValueError if it is no X.509 certificate."""
    try:
        ((_, certificate),) = _elements(der)
        (_, tbs), *_ = _elements(certificate)
        # The version may be missing.
        fields = [field for field in _elements(tbs) if field[0] != _TAG_0]
        (_, validity), extensions = fields[3], [body for tag, body in fields if tag == _TAG_3]
        not_before, not_after = (_parse_time(tag, body) for tag, body in _elements(validity))
        names = tuple(name for body in extensions for name in _alternative_names(body))
    except (ValueError, IndexError) as e:
        raise ValueError(f"no X.509 certificate: {e}") from None
    return CertInfo(names, not_before, not_after)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of each DER element in a sequence."""
    position = 0
    while position < len(data):
        tag, size = data[position], data[position + 1]
        position += 2
        if size & 0x80:
            octets = size & 0x7F
            size = int.from_bytes(data[position : position + octets], "big")
            position += octets
        if position + size > len(data):
            raise ValueError("an element is cut off")
        yield tag, data[position : position + size]
        position += size


def _parse_time(tag: int, body: bytes) -> float:
    form = {_UTC_TIME: "%y%m%d%H%M%SZ", _GENERALIZED_TIME: "%Y%m%d%H%M%SZ"}.get(tag)
    if form is None:
        raise ValueError("no time")
    return datetime.strptime(body.decode("ascii"), form).replace(tzinfo=timezone.utc).timestamp()


def _alternative_names(extensions: bytes) -> Iterator[str]:
    """Yield the names of the subjectAltName extension, if there is one."""
    ((_, sequence),) = _elements(extensions)
    for _, extension in _elements(sequence):
        (_, identifier), *_, (_, value) = _elements(extension)
        if identifier != _ID_ALTERNATIVE_NAME:
            continue
        ((_, names),) = _elements(value)
        for tag, name in _elements(names):
            if tag == _DNS_NAME:
                yield name.decode("ascii").lower()
            elif tag == _IP_ADDRESS:
                yield str(ip_address(name))


def _normal(hostname: str) -> str:
    try:
        return str(ip_address(hostname))
    except ValueError:
        return hostname.lower().rstrip(".")
