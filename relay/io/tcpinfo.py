"""The kernel's figures on a TCP connection. Linux."""

from __future__ import annotations

import socket
from struct import Struct
from typing import Final

# struct tcp_info: eight bytes, then 32-bit fields, of which tcpi_rtt is the sixteenth.
_RTT: Final = Struct("=68xI")


def read_rtt_us(sock: socket.socket) -> int:
    """Return the smoothed round trip time in microseconds; -1 if this is no open TCP connection."""
    try:
        (rtt_us,) = _RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
    except OSError:
        return -1
    return int(rtt_us)
