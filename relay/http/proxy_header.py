"""The client's own address behind a proxy: X-Forwarded-For, or a PROXY protocol header (v1, v2).

Sans-IO, bounded. Both are believed from trusted peers only, because any client can write them.
Source of the PROXY protocol: haproxy's doc/proxy-protocol.txt, sections 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from struct import Struct
from typing import Final

from relay.core.addresses import parse_address
from relay.core.reasons import Refusal

MAX_V1: Final = 107  # the longest line, its CR LF included
MAX_V2_BODY: Final = 2048  # addresses and TLVs; the field itself goes to 65,535
MAX_FORWARDED_FOR: Final = 4096  # characters that are looked at, from the end
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_HEAD: Final = 16
_V2_INET: Final = Struct(">4s4sHH")
_V2_INET6: Final = Struct(">16s16sHH")


class ProxyHeaderError(Exception):
    """A PROXY header that is malformed or missing: close the connection."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class ProxyHeader:
    """A header of `size` bytes, and the client that it names.

    `source` is None where the proxy speaks for itself, as in health checks.
    """

    size: int
    source: tuple[str, int] | None


class Networks:
    """Addresses and CIDRs. Raises ValueError for anything else."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network]
        self._networks = [ip_network(text, strict=False) for text in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def have(self, address: str) -> bool:
        """Whether this address is one of them; IPv4 in IPv6 counts as IPv4."""
        parsed = _parse_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)


class TrustedProxies(Networks):
    """The peers that are believed about a client's address.

    `send_header`: their connections begin with a PROXY header.
    """

    def __init__(self, networks: Iterable[str], *, send_header: bool = False) -> None:
        super().__init__(networks)
        self.send_header = send_header

    def trusts(self, address: str) -> bool:
        """Whether this peer is one of them."""
        return self.have(address)

    def client_of(self, peer: str, forwarded_for: Iterable[str]) -> str:
        """Return the client's address, given the TCP peer's and the X-Forwarded-For headers.

        The headers come in their order and are read from the end, where our own proxy wrote: the
        first address that is no trusted proxy is the client. The client could have written
        everything before that. An entry that is no address ends the search.
        """
        client = peer
        if not self.trusts(peer):
            return client
        for entry in reversed(",".join(forwarded_for)[-MAX_FORWARDED_FOR:].split(",")):
            parsed = _parse_address(entry.strip())
            if parsed is None:
                break
            client = str(parsed)
            if not self.trusts(client):
                break
        return client


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an address that may be in brackets or have a port; mapped IPv4 becomes IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return parse_address(text)


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header at the beginning of a connection, or None while more bytes are needed.

    Raises ProxyHeaderError.
    """
    if data.startswith(_SIGNATURE):
        return _parse_v2(data)
    if data.startswith(b"PROXY "):
        return _parse_v1(data)
    if _SIGNATURE.startswith(data) or b"PROXY ".startswith(data):
        return None
    raise ProxyHeaderError(Refusal.NO_PROXY_HEADER)


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) < MAX_V1:
            return None
        raise ProxyHeaderError(Refusal.BAD_PROXY_HEADER)
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return ProxyHeader(end + 2, None)
    family = {b"TCP4": IPv4Address, b"TCP6": IPv6Address}.get(words[1])
    if family is None or len(words) != 6:
        raise ProxyHeaderError(Refusal.BAD_PROXY_HEADER)
    try:
        source, _ = (family(word.decode("ascii")) for word in words[2:4])
        port, _ = (_parse_port(word) for word in words[4:])
    except ValueError:
        raise ProxyHeaderError(Refusal.BAD_PROXY_HEADER) from None
    return ProxyHeader(end + 2, (str(source), port))


def _parse_port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (len(word) > 1 and word.startswith(b"0")) or int(word) > 65535:
        raise ValueError
    return int(word)


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_HEAD:
        return None
    version_command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if version_command not in (0x20, 0x21) or length > MAX_V2_BODY:
        raise ProxyHeaderError(Refusal.BAD_PROXY_HEADER)
    size = _V2_HEAD + length
    if len(data) < size:
        return None
    # LOCAL, or not TCP: the address is the peer's.
    if version_command == 0x20 or family not in (0x11, 0x21):
        return ProxyHeader(size, None)
    layout, kind = (_V2_INET, IPv4Address) if family == 0x11 else (_V2_INET6, IPv6Address)
    if length < layout.size:
        raise ProxyHeaderError(Refusal.BAD_PROXY_HEADER)
    source, _, port, _ = layout.unpack_from(data, _V2_HEAD)
    return ProxyHeader(size, (str(kind(source)), port))
