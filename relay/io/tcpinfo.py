"""What the kernel knows of a TCP connection. Linux."""

from __future__ import annotations

import socket
from struct import Struct
from typing import Final

_RTT: Final = Struct("=68xI")  # struct tcp_info: eight bytes, then 32-bit fields, of which tcpi_rtt is the sixteenth


def read_rtt_us(sock: socket.socket) -> int:
    """The smoothed round trip time in microseconds; -1 if this is no TCP connection, or not any more."""
    try:
        (rtt_us,) = _RTT.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT.size))
    except OSError:
        return -1
    return int(rtt_us)
