"""A switch with connected clients, and what a test says to them and hears from them."""

from ipaddress import ip_address

from relay.core import wire
from relay.core.handshake import ClientInfo
from relay.core.outbox import Outbox
from relay.core.session import Session
from relay.core.switch import MeshLink, Switch
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
    """What arrived, whole frames only; what it set off is taken from the outboxes by `frames`."""
    buffer = bytearray(data + bytes(wire.PACKET_HEAD_LEN))
    return session.feed(buffer, 0, len(data))


def frames(room, session):
    """(type, payload) of everything that leaves for a session now."""
    room.switch.dirty.clear()
    data = b""
    while chunk := session.outbox.take(room.now)[0]:
        data += chunk
    return FrameReader().receive(data)


def drops(room):
    """Packets by reason and kind, those that there are."""
    return {f"{reason}/{kind}": cell[0] for (reason, kind), cell in room.switch.drops.items() if cell[0]}


def link(room, name, **more):
    """A mesh link of that name, up."""
    made = MeshLink(name, Outbox(room.switch.dirty, room.switch.drop, None, mesh=True), **more)
    room.switch.add_link(made)
    return made


def watch(room, number, **more):
    """A mesh peer that watches."""
    watcher = room.join(number, is_mesh=True, **more)
    feed(watcher, wire.WATCH_CONNS_FRAME)
    return watcher


def presents(given):
    """Who was told to be there, out of what `frames` gives."""
    return [wire.parse_peer_present(payload) for kind, payload in given if kind == wire.PEER_PRESENT]


def send(number, packet):
    """The frame that sends a packet to somebody."""
    return wire.pack_send_packet(key_of(number), packet)


def received(number, packet):
    """The frame that brings a packet of somebody's."""
    return (wire.RECV_PACKET, key_of(number) + packet)
