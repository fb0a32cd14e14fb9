"""A switch with connected clients, for tests of what is shown of them."""

from ipaddress import ip_address

from relay.handshake import ClientInfo
from relay.session import Session
from relay.switch import Switch
from relay.wire import pack_send_packet

SERVER = b"\xee" * 32


def key_of(number):
    return bytes((number,)) * 32


class Room:
    """`now` is the clock; `join` connects, `say` sends a packet from one to another and delivers it."""

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
        assert session.feed(buffer, len(frame)) == len(frame)
        self.flush()

    def flush(self):
        while self.switch.dirty:
            self.switch.dirty.pop().take(self.now)
