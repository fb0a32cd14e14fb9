"""The address of this host that a datagram was sent to, so that its answer leaves from there.

See "pktinfo" in ip(7) and ipv6(7). By default a wildcard socket answers from the address that
routing prefers. On a host with several that need not be the one that was asked, and a client's NAT
or firewall drops an answer from a stranger. The interface is left to routing all the same (index
0), as in derper since 1.104. Linux only, there too; elsewhere the kernel chooses.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

IP_PKTINFO: Final = 8  # socket.IP_PKTINFO came with Python 3.12
IPV6_PKTINFO: Final = 50
_IPV6_RECVPKTINFO: Final = 49
# struct cmsghdr
_HEADER: Final = (("size", ctypes.c_size_t), ("level", ctypes.c_int), ("type", ctypes.c_int))
_ANY_INTERFACE: Final = bytes(4)


class Asked4(ctypes.Structure):
    """A control message with its struct in_pktinfo.

    `source` is the address to answer from, even if a broadcast was asked.
    """

    _fields_ = (
        *_HEADER,
        ("interface", ctypes.c_uint),
        ("source", ctypes.c_uint),
        ("destination", ctypes.c_uint),
    )


class Asked6(ctypes.Structure):
    """A control message with its struct in6_pktinfo."""

    _fields_ = (*_HEADER, ("source", ctypes.c_ubyte * 16), ("interface", ctypes.c_uint))


class Asked(ctypes.Structure):
    """The control messages of a datagram on an IPv6 socket; the second one only if it is IPv4."""

    _fields_ = (("six", Asked6), ("four", Asked4))


def enable(sock: socket.socket) -> None:
    """Ask the kernel for the destination address of each datagram, if it can give it."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        # IPv4 reaches IPv6 sockets too, unless they are for IPv6 only.
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)


def reply(received: Iterable[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Return the control messages for an answer, from those that recvmsg gave with the request."""
    found = []
    for level, kind, data in received:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            found.append((level, kind, _ANY_INTERFACE + data[4:]))
        elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            found.append((level, kind, data[:16] + _ANY_INTERFACE))
    return found
