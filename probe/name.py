"""First rung: the name leads to this relay, and straight to it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from probe.net import Patience, resolve, within
from probe.proof import Broken, Found
from probe.target import Target

_TELLTALES = (
    # Cloudflare's published edge (www.cloudflare.com/ips); its proxy passes WebSocket upgrades
    # only, so DERP never gets through.
    (
        "103.21.244.0/22 103.22.200.0/22 103.31.4.0/22 104.16.0.0/13 104.24.0.0/14 108.162.192.0/18 "
        "131.0.72.0/22 141.101.64.0/18 162.158.0.0/15 172.64.0.0/13 173.245.48.0/20 188.114.96.0/20 "
        "190.93.240.0/20 197.234.240.0/22 198.41.128.0/17 "
        "2400:cb00::/32 2606:4700::/32 2803:f800::/32 2405:b500::/32 2405:8100::/32 2a06:98c0::/29 "
        "2c0f:f248::/32",
        "the name is proxied by Cloudflare, which passes WebSocket upgrades only",
        "set the DNS record to 'DNS only'",
    ),
    (
        "198.18.0.0/15",
        "a proxy on this controller answers DNS with its own addresses (198.18.0.0/15, 'fake-ip' mode)",
        "exempt the name from the proxy, or run this from another machine",
    ),
    (
        "127.0.0.0/8 0.0.0.0/8 ::1/128 ::/128",
        "the name is blocked: it resolves to this machine, as filters make blocked domains do",
        "compare the answer of another resolver and /etc/hosts",
    ),
)
_TABLE = tuple(
    (tuple(ip_network(net) for net in nets.split()), cause, step) for nets, cause, step in _TELLTALES
)


Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Addresses:
    """Where the relay is: at most one address of each family."""

    ipv4: str | None
    ipv6: str | None

    @property
    def all(self) -> tuple[str, ...]:
        """IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address)


def stated(target: Target) -> Addresses:
    """Return the addresses that the target states.

    The rungs above use them when the name is broken.
    """
    if target.is_address:
        version = ip_address(target.domain).version
        return Addresses(target.domain if version == 4 else None, target.domain if version == 6 else None)
    return Addresses(target.ipv4, target.ipv6)


async def check_name(target: Target, patience: Patience) -> Found[Addresses]:
    """Check that A and AAAA are the site's addresses, and that no CDN is between. Raises Broken."""
    if target.is_address:
        return Found(stated(target), f"{target.domain} is an address: clients reach it without DNS")
    late = Broken(
        f"no answer for {target.domain} in {patience.name_s:g} s",
        cause="the resolver of this controller does not answer",
        next=f"dig {target.domain}",
    )
    async with within(patience.name_s, late, partial(_unresolved, target)):
        answer = await (target.resolve or resolve)(target.domain)
    found = [ip_address(text.split("%")[0]) for text in answer]
    if not found:
        raise _unresolved(target, socket.gaierror(socket.EAI_NONAME, "no address"))
    return judge(target, found)


def judge(target: Target, found: Sequence[Address]) -> Found[Addresses]:
    """Compare the resolver's answer with the target's addresses. Raises Broken."""
    wanted = stated(target)
    by_version = {
        version: [str(address) for address in found if address.version == version] for version in (4, 6)
    }
    warnings = []
    for record, version, expected in (("A", 4, wanted.ipv4), ("AAAA", 6, wanted.ipv6)):
        seen = by_version[version]
        if expected is None and wanted.all and seen:
            warnings.append(
                f"{record} {', '.join(seen)} is not in the site file; an ACME server "
                "prefers IPv6 and would go there"
            )
        elif expected is None and len(seen) > 1:
            warnings.append(
                f"{len(seen)} addresses of one kind: clients expect one relay for a "
                "name; the first address is proved"
            )
        elif expected is not None and not seen:
            warnings.append(
                f"no {record} record for {expected}; clients use the map's address, an ACME server cannot"
            )
        strays = [address for address in found if address.version == version and str(address) != expected]
        if strays and (expected is not None or not wanted.all):
            _check_stray(target, record, strays, seen, expected)
    here = wanted if wanted.all else Addresses(*(next(iter(by_version[version]), None) for version in (4, 6)))
    answer = ", ".join(map(str, found))
    return Found(
        here,
        f"{target.domain} is {answer}",
        "; ".join(warnings),
        {"addresses": [str(address) for address in found]},
    )


def _check_stray(
    target: Target, record: str, strays: Sequence[Address], seen: Sequence[str], expected: str | None
) -> None:
    """Raise Broken for an address that is not the site's, or that belongs to a CDN or a filter."""
    answer = f"{target.domain} resolves to {', '.join(seen)}"
    for nets, cause, step in _TABLE:
        if any(stray in net for net in nets for stray in strays):
            raise Broken(answer, cause=cause, next=f"{step}, then {target.again}")
    if expected is not None:
        also = "also " if expected in seen else ""
        raise Broken(
            f"{answer}, the site says {expected}",
            cause=f"the {record} record {also}points elsewhere",
            next=f"set {record} of {target.domain} to {expected}, then {target.again}",
        )


def _unresolved(target: Target, error: OSError) -> Broken:
    unknown = isinstance(error, socket.gaierror) and error.errno in {
        socket.EAI_NONAME,
        getattr(socket, "EAI_NODATA", socket.EAI_NONAME),
    }
    cause = "the name does not exist" if unknown else "the resolver of this controller does not work"
    records = " and ".join(
        f"{record} {address}" for record, address in (("A", target.ipv4), ("AAAA", target.ipv6)) if address
    )
    step = (
        f"set {records} for {target.domain}, then {target.again}"
        if unknown and records
        else f"dig {target.domain}"
    )
    return Broken(f"{target.domain} does not resolve: {error.strerror or error}", cause=cause, next=step)
