"""The STUN socket with many datagrams per system call: recvmmsg(2) and sendmmsg(2), through ctypes.

Half of the cost of recvmsg and sendmsg is the two system calls. A quarter is Python's addresses:
text made of the kernel's bytes, and bytes made of that text. Here the kernel writes a sender's
address where it later reads the receiver's, and the address that was asked where it later reads the
one to answer from. So no code parses them. Answers are packed into buffers that are described to
the kernel once. Answers per CPU-second: 166 k with recvmsg and sendmsg (stun_socket.py), 307 k
here, 312 k to 321 k by derper. ctypes makes two calls per batch, and does nothing per datagram.

macOS and old C libraries lack the calls, and a sandbox may refuse them: there `open_stun` uses the
other socket.
"""

from __future__ import annotations

import ctypes
import errno
import socket
from collections.abc import Callable, Iterable
from typing import Any, Final

from relay.core import stun
from relay.core.stun import ANSWER4, SLOT, SOURCE4
from relay.core.wire import ProtocolError
from relay.io.loop import Loop
from relay.io.pktinfo import Asked, Asked4, Asked6
from relay.io.stun_socket import MAX_PER_WAKE, StunSocket

DATAGRAMS: Final = 32  # datagrams per system call; larger ones gain 2 % and keep TCP waiting longer
_SOURCE6: Final = 28  # bytes of a struct sockaddr_in6
_ANSWER6: Final = 44
_ANY_INTERFACE: Final = memoryview(bytes(4 * DATAGRAMS)).cast("I")
_INTERFACE4: Final = (Asked4.interface.offset,)
_INTERFACES6: Final = (
    Asked.six.offset + Asked6.interface.offset,
    Asked.four.offset + Asked4.interface.offset,
)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: `size` is the number of bytes that came."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint32))


def _find(name: str, *more: Any) -> Callable[..., int] | None:
    """Return the C library's function on (socket, messages, count, flags), or None."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, *more)
    found: Callable[..., int] = function
    return found


_recvmmsg: Final = _find("recvmmsg", ctypes.c_void_p)
_sendmmsg: Final = _find("sendmmsg")


def open_stun(loop: Loop, sock: socket.socket, silent: Callable[[], bool]) -> StunSocket:
    """Answer STUN on a bound, non-blocking socket, in the best way of this system."""
    return (BatchedStunSocket if _is_served(sock) else StunSocket)(loop, sock, silent)


def _is_served(sock: socket.socket) -> bool:
    """Whether both calls are there, and no sandbox refuses them."""
    if _recvmmsg is None or _sendmmsg is None:
        return False
    fd, flags = sock.fileno(), socket.MSG_DONTWAIT
    return _recvmmsg(fd, None, 0, flags, None) == 0 and _sendmmsg(fd, None, 0, flags) == 0


class _Batch:
    """DATAGRAMS messages for the kernel, one every `stride` bytes of `data`.

    `names` holds their addresses, `controls` their control messages.
    """

    def __init__(self, stride: int, names: bytearray, controls: bytearray) -> None:
        self.data = bytearray(DATAGRAMS * stride)
        start, name_start, name_size = _address(self.data), _address(names), len(names) // DATAGRAMS
        control_start, control_size = _address(controls), len(controls) // DATAGRAMS
        self._parts = (_Iovec * DATAGRAMS)()
        self._messages = (_Message * DATAGRAMS)()
        for n, (part, message) in enumerate(zip(self._parts, self._messages, strict=True)):
            part.base, part.size = start + n * stride, stride
            name, control = name_start + n * name_size, control_start + n * control_size
            message.header = _Header(name, name_size, ctypes.addressof(part), 1, control, control_size)
        self.address: Final = ctypes.addressof(self._messages)
        messages = memoryview(self._messages).cast("B")
        self.sizes: Final = _every(messages.cast("I"), _Message.size.offset, ctypes.sizeof(_Message))
        words, offset = messages.cast("L"), _Header.control_size.offset
        self.control_sizes: Final = _every(words, offset, ctypes.sizeof(_Message))

    def resize(self, slot: int, size: int) -> None:
        """Send so many bytes of a slot."""
        self._parts[slot].size = size


class BatchedStunSocket(StunSocket):
    """A StunSocket with a slot per datagram; requests are answered in slots of the same number."""

    def _prepare(self) -> None:
        assert _recvmmsg is not None and _sendmmsg is not None  # noqa: S101  (for the type checker)
        self._receive, self._send = _recvmmsg, _sendmmsg
        self._fd = self._socket.fileno()
        self._sources = bytearray(DATAGRAMS * (SOURCE4 if self._is_ipv4 else _SOURCE6))
        control_size = ctypes.sizeof(Asked4 if self._is_ipv4 else Asked)
        controls = bytearray(DATAGRAMS * control_size)
        self._requests = _Batch(SLOT, self._sources, controls)
        self._answers = _Batch(ANSWER4 if self._is_ipv4 else _ANSWER6, self._sources, controls)
        self._control_room = memoryview(bytearray(self._requests.control_sizes)).cast("L")
        words = memoryview(controls).cast("I")
        offsets = _INTERFACE4 if self._is_ipv4 else _INTERFACES6
        self._interfaces = [_every(words, offset, control_size) for offset in offsets]
        self._request_view, self._source_view = memoryview(self._requests.data), memoryview(self._sources)

    def _read(self) -> None:
        silent = self._silent()
        for _ in range(MAX_PER_WAKE // DATAGRAMS):
            self._requests.control_sizes[:] = self._control_room  # the kernel writes the sizes used
            count = self._receive(self._fd, self._requests.address, DATAGRAMS, socket.MSG_DONTWAIT, None)
            if count < 0:
                if ctypes.get_errno() not in (errno.EAGAIN, errno.EINTR):
                    self.requests.read_error += 1
                return
            sizes = self._requests.sizes[:count].tolist()
            if silent:
                self.silenced += sum(self._parse(slot, size) is not None for slot, size in enumerate(sizes))
            else:
                self._answer(sizes)
            if count < DATAGRAMS:
                return

    def _answer(self, sizes: list[int]) -> None:
        """Answer the datagrams of these sizes, in runs between those that get no answer."""
        count = len(sizes)
        self._answers.control_sizes[:] = self._requests.control_sizes
        for interfaces in self._interfaces:
            interfaces[:] = _ANY_INTERFACE
        unusual: Iterable[int] = range(count)
        if self._is_ipv4:
            requests, sources = self._request_view[: count * SLOT], self._source_view[: count * SOURCE4]
            unusual = stun.answer_batch4(requests, sizes, sources, self._answers.data)
        first = 0
        for slot in unusual:
            if not self._answer_one(slot, sizes[slot]):
                self._send_run(first, slot)
                first = slot + 1
        self._send_run(first, count)

    def _answer_one(self, slot: int, size: int) -> bool:
        """Pack the answer for a slot. Return whether it gets one."""
        txid = self._parse(slot, size)
        if txid is None:
            return False
        if self._is_ipv4:
            at = slot * SOURCE4
            address = bytes(self._sources[at + 4 : at + 8])
        else:
            at = slot * _SOURCE6
            address = bytes(self._sources[at + 8 : at + 24])
        answer = stun.pack_response(txid, address, int.from_bytes(self._sources[at + 2 : at + 4], "big"))
        batch = self._answers
        start = slot * len(batch.data) // DATAGRAMS
        batch.data[start : start + len(answer)] = answer
        batch.resize(slot, len(answer))  # mapped IPv4 gets the short answer
        return True

    def _parse(self, slot: int, size: int) -> bytes | None:
        try:
            return stun.parse_request(bytes(self._request_view[slot * SLOT : slot * SLOT + size]))
        except ProtocolError:
            self.requests.not_stun += 1
            return None

    def _send_run(self, first: int, after: int) -> None:
        """Send the answers of these slots.

        One that cannot be sent (port 0, the kernel's buffer is full) is skipped.
        """
        while first < after:
            start = self._answers.address + first * ctypes.sizeof(_Message)
            sent = self._send(self._fd, start, after - first, socket.MSG_DONTWAIT)
            if sent > 0:
                self.requests.success += sent
                first += sent
            else:
                self.requests.write_error += 1
                first += 1


def _every(view: memoryview, offset: int, stride: int) -> memoryview:
    """Return the items of a view at an offset in bytes and, from there, every stride bytes."""
    return view[offset // view.itemsize :: stride // view.itemsize]


def _address(buffer: bytearray) -> int:
    """Return the buffer's address; it must not be resized after this."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
