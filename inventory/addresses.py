"""Addresses that clients cannot be sent to. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

_PRIVATE = tuple(
    map(
        ip_network,
        ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1", "fc00::/7"),
    )
)
# For tests of networks, and for protocols (RFC 6890).
_OF_NOBODY = tuple(map(ip_network, ("198.18.0.0/15", "192.0.0.0/24")))


def is_private(address: IPv4Address | IPv6Address) -> bool:
    """Whether hosts of many networks have the address."""
    return any(address in network for network in _PRIVATE if network.version == address.version)


def is_one_hosts(address: IPv4Address | IPv6Address) -> bool:
    """Whether one host may have the address, and on more than one link (not as `fe80::1%eth0`).

    Those for documentation count, as the lab has them.
    """
    return is_private(address) or not (
        address.is_multicast
        or address.is_unspecified
        or address.is_link_local
        or address.is_reserved
        or getattr(address, "scope_id", None) is not None
        or any(address in network for network in _OF_NOBODY if network.version == address.version)
    )
