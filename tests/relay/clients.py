"""A switch with connected clients, and the frames that a test sends and receives for them."""

from ipaddress import ip_address

from relay.core import wire
from relay.core.handshake import ClientInfo
from relay.core.outbox import Outbox
from relay.core.peer import MeshLink
from relay.core.session import Session
from relay.core.switch import Switch
from relay.core.wire import FrameReader, pack_send_packet
from tests.relay import vectors as v

SERVER = b"\xee" * 32
DISCO = v.SMALLEST_DISCO
NOT_DISCO = DISCO[:61]  # one byte short of looking like it


def key_of(number):
    return bytes((number,)) * 32


class Room:
    """`now` is the clock; `join` connects, `say` sends a packet from one to another and delivers
    it.
    """

    def __init__(self):
        self.now = 1000.0
        self.switch = Switch(lambda: self.now, SERVER)
        self._serial = 0

    def join(self, number, address="203.0.113.1", port=40000, **more):
        self._serial += 1
        info = ClientInfo(app_name=more.pop("app", ""), is_prober=more.pop("prober", False))
        session = Session(
            self.switch,
            key_of(number),
            info,
            None,
            serial=self._serial,
            address=ip_address(address) if address else None,
            port=port,
            **more,
        )
        self.switch.register(session)
        return session

    def say(self, session, number, payload):
        frame = pack_send_packet(key_of(number), payload)
        buffer = bytearray(frame + bytes(64))
        assert session.feed(buffer, 0, len(frame)) == len(frame)
        self.flush()

    def flush(self):
        while self.switch.dirty:
            self.switch.dirty.pop().take(self.now)


def feed(session, data):
    """Let whole frames arrive. `frames` takes the answers from the outboxes."""
    buffer = bytearray(data + bytes(wire.PACKET_HEAD_LEN))
    return session.feed(buffer, 0, len(data))


def frames(room, session):
    """Return (type, payload) of everything that leaves for a session now."""
    room.switch.dirty.clear()
    data = b""
    while chunk := session.outbox.take(room.now)[0]:
        data += chunk
    return FrameReader().receive(data)


def drops(room):
    """Return the dropped packets by reason and kind, without zeros."""
    return {f"{reason}/{kind}": cell[0] for (reason, kind), cell in room.switch.drops.items() if cell[0]}


def link(room, name, **more):
    """Return a mesh link of that name, up."""
    made = MeshLink(name, Outbox(room.switch.dirty, room.switch.drop, None, mesh=True), **more)
    room.switch.add_link(made)
    return made


def watch(room, number, **more):
    """Return a mesh peer that watches."""
    watcher = room.join(number, is_mesh=True, **more)
    feed(watcher, wire.WATCH_CONNS_FRAME)
    return watcher


def presents(given):
    """Return the clients that PEER_PRESENT frames announce, out of the result of `frames`."""
    return [wire.parse_peer_present(payload) for kind, payload in given if kind == wire.PEER_PRESENT]


def send(number, packet):
    """Return the frame that sends a packet to the client of that number."""
    return wire.pack_send_packet(key_of(number), packet)


def received(number, packet):
    """Return the frame that brings a packet of the client of that number."""
    return (wire.RECV_PACKET, key_of(number) + packet)
