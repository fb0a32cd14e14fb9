"""A switch with clients and no sockets, for the tests of the core."""

from __future__ import annotations

from relay.core import peer, switch, wire
from relay.core.handshake import ClientInfo
from relay.core.outbox import Chunk, Outbox
from relay.core.session import Session

SERVER = b"S" * 32


def key(name: str) -> bytes:
    """Return a readable key of 32 bytes."""
    return name.encode().ljust(32, b".")


class Socket:
    """The end of a connection's bytes."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.reader = wire.FrameReader()

    def write(self, chunk: Chunk) -> None:
        self.written.append(bytes(chunk))

    def frames(self) -> list[tuple[int, bytes]]:
        """Return the frames that arrived since the last call."""
        data = b"".join(self.written)
        self.written.clear()
        return self.reader.receive(data)


BEFORE = 11  # bytes of the buffer before the client's


class World:
    """A switch, a clock that the test sets, and the loop's part of the work."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.switch = switch.Switch(lambda: self.now, SERVER)

    def connect(self, name: str, **options: object) -> Client:
        client = Client(self, key(name), **options)
        self.switch.register(client.session)
        return client

    def link(self, name: str, *, sibling: bool = False) -> MeshLink:
        link = MeshLink(self, name, sibling=sibling)
        self.switch.add_link(link.link)
        return link

    def tick(self) -> None:
        """End a tick: write everything that is pending."""
        self.switch.backlog = 0
        outboxes = self.switch.dirty[:]
        self.switch.dirty.clear()
        for outbox in outboxes:
            if not outbox.writable:
                continue
            chunk, _ = outbox.take(self.now)
            if chunk:
                outbox.link.write(chunk)
            if outbox.waiting:
                self.switch.dirty.append(outbox)

    def dropped(self, reason: str, kind: str = "other") -> int:
        return self.switch.drops[reason, kind][0]


class Client:
    """A local connection: `says` bytes, `hears` frames."""

    def __init__(
        self, world: World, key: bytes, *, info: ClientInfo | None = None, **options: object
    ) -> None:
        self.world = world
        self.key = key
        self.socket = Socket()
        self.session = Session(world.switch, key, info or ClientInfo(), self.socket, **options)
        self._tail = b""

    @property
    def outbox(self) -> Outbox:
        return self.session.outbox

    def says(self, *frames: bytes) -> None:
        """Let frames arrive in one read off the socket, behind the bytes that the last one left."""
        data = self._tail + b"".join(frames)
        start, end = BEFORE, BEFORE + len(data)
        buffer = bytearray(BEFORE) + bytearray(data) + bytearray(wire.PACKET_HEAD_LEN)
        position = self.session.feed(buffer, start, end)
        self._tail = bytes(buffer[position:end])

    def sends(self, to: Client | bytes, packet: bytes) -> None:
        self.says(wire.pack_send_packet(to if isinstance(to, bytes) else to.key, packet))

    def hears(self) -> list[tuple[int, bytes]]:
        """End a tick, and return the frames that left for this client."""
        self.world.tick()
        return self.socket.frames()

    def gets(self) -> list[tuple[bytes, bytes]]:
        """Return (source, packet) of the packets among them."""
        return [(payload[:32], payload[32:]) for kind, payload in self.hears() if kind == wire.RECV_PACKET]

    def leaves(self) -> None:
        self.world.switch.unregister(self.session)


class MeshLink:
    """A link to another relay."""

    def __init__(self, world: World, name: str, *, sibling: bool) -> None:
        self.world = world
        self.socket = Socket()
        outbox = Outbox(world.switch.dirty, world.switch.drop, self.socket, mesh=True)
        self.link = peer.MeshLink(name, outbox, sibling=sibling)

    def has(self, name: str) -> None:
        self.world.switch.announce(self.link, wire.PeerPresent(key(name), None, 0, wire.PRESENT_REGULAR))

    def lost(self, name: str) -> None:
        self.world.switch.withdraw(self.link, key(name))

    def hears(self) -> list[tuple[int, bytes]]:
        self.world.tick()
        return self.socket.frames()

    def breaks(self) -> None:
        self.world.switch.remove_link(self.link)
