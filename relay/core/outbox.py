"""The bytes that are on their way to one connection. No I/O, no clock.

While the connection takes bytes, chunks collect in `pending` for one tick of the loop and leave in
one joined write. While it does not, packets wait in two short lanes (disco apart, so that NAT
traversal survives a flood of data), and the oldest is dropped when a lane is full, in packets or in
bytes: a client that hardly reads costs 320 KiB, not 4 MiB. So senders never wait for a slow
receiver, and its cost is bounded. Packets that wait stay in front of newer ones, so the order
between two clients holds within a lane.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from random import getrandbits
from typing import Final, Protocol

from relay.core.reasons import Drop, WhyClosed
from relay.core.wire import (
    DISCO_MAGIC,
    FORWARD_PACKET,
    FORWARD_RUN,
    HEADER,
    HEADER_LEN,
    KEY_LEN,
    MIN_DISCO,
    PACKET_HEAD_LEN,
    RECV_PACKET,
    pack_pong,
)

DEPTH: Final = 32  # packets per lane
MESH_DEPTH: Final = 512  # a mesh link carries many clients' packets
# Bytes that a lane of DEPTH packets keeps. A mesh link's lanes keep more.
DATA_ROOM: Final = 256 * 1024
DISCO_ROOM: Final = 64 * 1024
# Bytes of waiting packets that are handed over at once; the rest can still be dropped.
BATCH_BYTES: Final = 128 * 1024

Chunk = bytes | bytearray


class Lane(deque[tuple[float, bytes]]):
    """Waiting packets: when each was queued, and its frame. `octets` is the sum of their bytes."""

    __slots__ = ("octets",)

    def __init__(self) -> None:
        super().__init__()
        self.octets = 0


# Reason, source key, is disco, packets, payload bytes.
OnDrop = Callable[[Drop, bytes, bool, int, int], None]
# Bound once: a flood may drop every packet, and a look-up in an Enum costs 0.1 µs.
_QUEUE_HEAD: Final = Drop.QUEUE_HEAD
_GONE: Final = Drop.GONE_DISCONNECTED


class Writer(Protocol):
    """The I/O layer's end of an outbox. The core never calls it."""

    def write(self, chunk: Chunk) -> None: ...
    def end(self, reason: WhyClosed) -> None: ...


class Outbox:
    """The writing side of a connection.

    `ready`: chunks of packets may be put into `pending` right away; the hot path (session.py) does
    that itself, with the lines of `put`. `current`: this is the connection that packets for its key
    go to. `writable`: the transport takes bytes. `special`: `take` has more to do than to join
    `pending`. `dirty` is the loop's list of outboxes to be written at the end of this tick; code
    that makes `pending` non-empty adds the outbox to it.
    """

    __slots__ = (
        "_control", "_data", "_depth", "_disco", "_drop", "_payload_at", "_pong_waits", "current", "dirty",
        "link", "octets", "packets", "pending", "ready", "special", "writable",
    )  # fmt: skip

    def __init__(self, dirty: list[Outbox], drop: OnDrop, link: Writer, *, mesh: bool = False) -> None:
        self.dirty = dirty
        self.link = link
        self.ready = self.current = self.special = False
        self.writable = True
        self.pending: list[Chunk] = []
        self.packets = 0  # put into pending so far
        # Their frames' bytes, as soon as they have left. Other bytes are subtracted beforehand.
        self.octets = 0
        self._drop = drop
        self._depth = MESH_DEPTH if mesh else DEPTH
        self._payload_at = PACKET_HEAD_LEN + (KEY_LEN if mesh else 0)
        self._control: list[bytes] | None = None
        self._data: Lane | None = None
        self._disco: Lane | None = None
        self._pong_waits = False

    @property
    def payload_octets(self) -> int:
        """Return the bytes of the packets put into `pending` so far, without headers and keys."""
        return self.octets + sum(map(len, self.pending)) - self.packets * self._payload_at

    @property
    def waiting(self) -> int:
        """Return how many packets are in the lanes."""
        return len(self._data or ()) + len(self._disco or ())

    def set_current(self, current: bool) -> None:
        """Set whether packets for the key go here."""
        self.current = current
        self._refresh()

    def block(self) -> None:
        """Note that the transport takes no more bytes."""
        self.writable = self.ready = False

    def unblock(self) -> None:
        """Note that the transport takes bytes again. Waiting packets leave with the next `take`."""
        self.writable = True
        self._refresh()
        if self._control is not None or self.waiting:
            self.dirty.append(self)

    def put(self, pieces: Sequence[Chunk], packets: int) -> None:
        """Add whole frames, in any number of pieces, that hold `packets` packets.

        Only while `ready`.
        """
        if not self.pending:
            self.dirty.append(self)
        self.pending += pieces
        self.packets += packets

    def control(self, frame: bytes) -> None:
        """Add a frame that carries no packet; it is never dropped."""
        if self.writable:
            if not self.pending:
                self.dirty.append(self)
            self.pending.append(frame)
            self.octets -= len(frame)
        else:
            if self._control is None:
                self._control = []
            self._control.append(frame)
            self.special = True

    def pong(self, data: bytes) -> bool:
        """Answer a ping, unless an earlier answer still waits.

        So a flood of pings makes no queue of pongs.
        """
        if self._pong_waits:
            return False
        self._pong_waits = self.special = True
        self.control(pack_pong(data))
        return True

    def queue(self, chunk: Chunk, size: int, source: bytes, now: float) -> None:
        """Keep equally long packet frames of `size` bytes for later.

        The oldest of a full lane is dropped.
        """
        if self.writable and not self.current and not self.waiting:
            self.dirty.append(self)  # another worker did not know yet that packets go elsewhere
        self.special = True
        offset = self._payload_at
        if size - offset >= MIN_DISCO and DISCO_MAGIC[0] in chunk[offset::size]:
            for start in range(0, len(chunk), size):
                self._queue_one(bytes(chunk[start : start + size]), now)
            return
        kept = min(self._depth, max(1, self._depth * DATA_ROOM // DEPTH // size))
        first = len(chunk) - kept * size
        if first > 0:  # its own tail pushes these out
            self._drop(_QUEUE_HEAD, source, False, first // size, first // size * (size - offset))
        for start in range(max(first, 0), len(chunk), size):
            self._data = self._append(self._data, bytes(chunk[start : start + size]), False, now)

    def take(self, now: float) -> tuple[Chunk, float]:
        """Return the bytes to write now, and the longest wait among them, in seconds."""
        pending, longest = self.pending, 0.0
        if self._control is not None:
            pending[:0] = self._control
            self.octets -= sum(map(len, self._control))
            self._control = None
        if self._data or self._disco:
            longest = self._take_waiting(now)
        chunk = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self.octets += len(chunk)
        self._pong_waits = False
        self.special = self.waiting > 0
        return chunk, longest

    def discard(self) -> None:
        """Drop every packet that is still here: the connection ended."""
        self.current = self.ready = self.writable = False
        left = b"".join(self.pending)
        self.octets += len(left)
        for frame in frames_in(left):
            self.packets -= 1
            self.octets -= len(frame)
            self._drop_one(_GONE, frame)
        for lane in (self._data, self._disco):
            for _, frame in lane or ():
                self._drop_one(_GONE, frame)
        self.pending.clear()
        self._control = self._data = self._disco = None
        self.special = False

    def _refresh(self) -> None:
        self.ready = self.current and self.writable and not self.waiting

    def _queue_one(self, frame: bytes, now: float) -> None:
        if self._is_disco(frame):
            self._disco = self._append(self._disco, frame, True, now)
        else:
            self._data = self._append(self._data, frame, False, now)

    def _append(self, lane: Lane | None, frame: bytes, is_disco: bool, now: float) -> Lane:
        if lane is None:
            lane = Lane()
        room = (DISCO_ROOM if is_disco else DATA_ROOM) * self._depth // DEPTH - len(frame)
        while lane and (len(lane) >= self._depth or lane.octets > room):
            oldest = lane.popleft()[1]
            lane.octets -= len(oldest)
            self._drop(_QUEUE_HEAD, _source(oldest), is_disco, 1, len(oldest) - self._payload_at)
        lane.append((now, frame))
        lane.octets += len(frame)
        return lane

    def _take_waiting(self, now: float) -> float:
        """Move waiting packets into pending, from the lanes at random, about BATCH_BYTES bytes."""
        longest, room = 0.0, BATCH_BYTES
        while room > 0 and (lane := self._next_lane()):
            since, frame = lane.popleft()
            lane.octets -= len(frame)
            longest = max(longest, now - since)
            self.pending.append(frame)
            self.packets += 1
            room -= len(frame)
        # An empty deque costs 600 bytes.
        self._data, self._disco = self._data or None, self._disco or None
        self._refresh()
        return longest

    def _next_lane(self) -> Lane | None:
        if self._data and self._disco:
            return self._disco if getrandbits(1) else self._data
        return self._data or self._disco

    def _is_disco(self, frame: bytes) -> bool:
        return len(frame) - self._payload_at >= MIN_DISCO and frame.startswith(DISCO_MAGIC, self._payload_at)

    def _drop_one(self, reason: Drop, frame: bytes) -> None:
        self._drop(reason, _source(frame), self._is_disco(frame), 1, len(frame) - self._payload_at)


class Remote(Outbox):
    """The bytes on their way to a client of another worker.

    `carrier` is the outbox of the link to that worker. For the hot path this is a destination like
    any other. Frames become RECV_PACKETs right here, and each run of them travels behind one head.
    It takes packets while the link does. Then the link lets go of it, and it is not `current` any
    more.
    """

    __slots__ = ("_key", "carrier")

    def __init__(self, carrier: Outbox, key: bytes) -> None:
        super().__init__(carrier.dirty, carrier._drop, carrier.link)
        self.carrier = carrier
        self._key = key
        self.special = True
        self.set_current(True)

    def take(self, now: float) -> tuple[Chunk, float]:
        pieces: list[Chunk] = []
        for run in self.pending:
            pieces += (HEADER.pack(FORWARD_RUN, KEY_LEN + len(run)) + self._key, run)
            self.octets += len(run)
        self.pending.clear()
        return b"".join(pieces), 0.0


def _source(frame: bytes) -> bytes:
    """Return the sender's key, which is at the same place in RECV_PACKET and FORWARD_PACKET."""
    return frame[HEADER_LEN:PACKET_HEAD_LEN]


def frames_in(stream: bytes) -> Iterator[bytes]:
    """Yield the packets' frames in a stream of whole frames."""
    start = 0
    while start < len(stream):
        kind, length = HEADER.unpack_from(stream, start)
        end = start + HEADER_LEN + length
        if kind in (RECV_PACKET, FORWARD_PACKET):
            yield stream[start:end]
        start = end
