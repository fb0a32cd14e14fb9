"""The STUN socket: two system calls per answer, as many answers per wake-up as are asked for.

asyncio's datagram protocols know no control messages, which carry the address that was asked
(pktinfo.py). Where the C library has system calls for many datagrams at once, stun_batch.py serves,
in half the CPU time.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable
from typing import Final

from relay.core import stun
from relay.core.counts import StunCounts
from relay.core.wire import ProtocolError
from relay.io import pktinfo
from relay.io.loop import Loop

MAX_DATAGRAM: Final = 1500
MAX_PER_WAKE: Final = 256  # then TCP gets its turn
_CONTROL_SIZE: Final = ctypes.sizeof(pktinfo.Asked)


class StunSocket:
    """Answers STUN on one bound, non-blocking socket, from the address that was asked.

    It answers nothing while `silent()` is true, which means that the relay itself does not work.
    """

    def __init__(self, loop: Loop, sock: socket.socket, silent: Callable[[], bool]) -> None:
        self.requests = StunCounts()
        self.silenced = 0
        self._loop = loop
        self._socket = sock
        self._silent = silent
        self._is_ipv4 = sock.family == socket.AF_INET
        pktinfo.enable(sock)
        self._prepare()
        loop.poller.call(sock.fileno(), self._read)

    @property
    def family(self) -> str:
        """Return `ipv4` or `ipv6`, as the metric has it."""
        return "ipv4" if self._is_ipv4 else "ipv6"

    @property
    def port(self) -> int:
        """Return the bound port."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop answering."""
        self._loop.poller.forget(self._socket.fileno())
        self._socket.close()

    def _prepare(self) -> None:
        self._buffer = bytearray(MAX_DATAGRAM)

    def _read(self) -> None:
        receive, send = self._socket.recvmsg_into, self._socket.sendmsg
        requests, buffer = self.requests, self._buffer
        inet_aton, inet_pton = socket.inet_aton, socket.inet_pton
        parse, pack, is_ipv4 = stun.parse_request, stun.pack_response, self._is_ipv4
        silent = self._silent()
        for _ in range(MAX_PER_WAKE):
            try:
                size, asked, _, source = receive([buffer], _CONTROL_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                requests.read_error += 1
                return
            try:
                txid = parse(buffer, size)
            except ProtocolError:
                requests.not_stun += 1
                continue
            if silent:
                self.silenced += 1
                continue
            host = source[0]
            packed = inet_aton(host) if is_ipv4 else inet_pton(socket.AF_INET6, host.partition("%")[0])
            try:
                send([pack(txid, packed, source[1])], pktinfo.reply(asked), 0, source)
            except OSError:
                # Port 0, or the kernel's buffer is full; no client waits for it.
                requests.write_error += 1
                continue
            requests.success += 1
