"""Clients on TLS, whose connections share their buffers: none loses bytes to another."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from relay.core import wire
from relay.core.handshake import ClientInfo
from relay.core.reasons import WhyClosed
from relay.core.session import Session
from relay.core.stats import Tally
from relay.core.switch import Switch
from relay.http.websocket import WebSocket
from relay.io import tls
from relay.io.link import Link, Owner, TlsLink, WebSocketLink
from relay.io.stream import Stream
from relay.io.tick import Tick
from relay.io.tls import TlsChannel, make_server_context
from relay.keys.self_signed import ensure_self_signed
from tests.relay.world import key

ADDRESS = "192.0.2.1"
GARBAGE = b"\x17\x03\x03\x00\x40" + bytes(64)  # a record that no key opens


class Office(Owner):
    """A relay without sockets."""

    def __init__(self, context: ssl.SSLContext, version: ssl.TLSVersion) -> None:
        self.reported: list[Exception] = []
        self.switch = Switch(lambda: 0.0, bytes(32))
        self.tick = Tick(lambda: 0.0, self.reported.append, self.switch, Tally())
        self.ended: list[tuple[bytes, str]] = []
        self.context = context
        self.version = version

    def when_known(self, then: Callable[[], None]) -> None:
        then()

    def link_ended(self, link: Link, reason: WhyClosed, code: int = 0) -> None:
        assert link.session is not None
        self.ended.append((link.session.key, reason))
        self.switch.unregister(link.session)

    def end_tick(self) -> None:
        while self.tick.flush():
            pass


class Client:
    """A client and its connection, from the client's TLS to the relay's link."""

    def __init__(
        self,
        office: Office,
        name: str,
        *,
        browser: bool = False,
        starts: Callable[[Client], bytes] | None = None,
        alpn: Sequence[str] = (),
    ) -> None:
        self.office, self.key = office, key(name)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        trusting.check_hostname, trusting.verify_mode, trusting.maximum_version = (
            False,
            ssl.CERT_NONE,
            office.version,
        )
        trusting.set_alpn_protocols(alpn)
        self.tls = trusting.wrap_bio(self.incoming, self.outgoing)
        self.channel = TlsChannel(office.context)
        while not self.channel.shaken:
            self._shake()
        self._shake()
        silent = {name: lambda *_: None for name in ("abort", "close", "set_receiver", "resume_reading")}
        stream = cast(Stream, SimpleNamespace(write=self.incoming.write, **silent))
        self.ws = WebSocket(client=True) if browser else None
        link = (
            WebSocketLink(office, stream, self.channel, WebSocket())
            if browser
            else TlsLink(office, stream, self.channel)
        )
        self.session = Session(office.switch, self.key, ClientInfo(), link)
        office.switch.register(self.session)
        self.link: Link = link
        link.start(self.session, b"", self.channel.unseal(starts(self)) if starts else b"")

    def _shake(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.channel.unseal(self.outgoing.read())
        self.incoming.write(self.channel.take_reply())

    def seal(self, data: bytes) -> None:
        """Encrypt, to be sent with the next bytes."""
        self.tls.write(self.ws.pack(data) if self.ws else data)

    def says(self, data: bytes) -> None:
        self.seal(data)
        self.raw(self.outgoing.read())

    def closes(self) -> bytes:
        """Return the sealed bytes, with the end of the TLS session."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self.outgoing.read()

    def raw(self, data: bytes) -> None:
        self.link.buffer[: len(data)] = data
        self.link.buffer_updated(len(data))
        self.office.end_tick()

    def hears(self) -> list[tuple[int, bytes]]:
        data = b""
        while self.incoming.pending:
            data += self.tls.read(65536)
        return wire.FrameReader().receive(self.ws.feed(data)[0] if self.ws else data)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("certificates")
    ensure_self_signed(str(folder), ADDRESS, time.time())
    return make_server_context(folder / f"{ADDRESS}.crt", folder / f"{ADDRESS}.key", "")


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def office(request: pytest.FixtureRequest, context: ssl.SSLContext) -> Iterator[Office]:
    office = Office(context, request.param)
    yield office
    assert office.switch.consistency_check() == []
    assert office.reported == []
    assert tls.INCOMING.pending == tls.OUTGOING.pending == 0


@pytest.fixture(params=[False, True], ids=["derp", "websocket"])
def browser(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_one_that_breaks_its_tls_breaks_no_other(office: Office, browser: bool) -> None:
    mallory, alice, bob = (
        Client(office, "mallory", browser=browser),
        Client(office, "alice"),
        Client(office, "bob", browser=browser),
    )
    mallory.raw(GARBAGE)
    assert office.ended == [(mallory.key, "tls_error")]
    alice.says(wire.pack_send_packet(bob.key, b"unharmed"))
    assert bob.hears() == [(wire.RECV_PACKET, alice.key + b"unharmed")]


@pytest.mark.parametrize(
    ("alpn", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), (["smtp"], None)]
)
def test_a_client_without_http_1_1_in_its_alpn_is_served_without_alpn(
    office: Office, alpn: list[str], chosen: str | None
) -> None:
    alice = Client(office, "alice", alpn=alpn)
    assert alice.tls.selected_alpn_protocol() == chosen
    alice.says(wire.pack_ping(b"8 bytes."))
    assert alice.hears() == [(wire.PONG, b"8 bytes.")]


@pytest.mark.parametrize(("broken", "reason"), [(False, "closed_by_client"), (True, "tls_error")])
def test_what_comes_before_the_end_of_tls_is_relayed(
    office: Office, browser: bool, broken: bool, reason: str
) -> None:
    alice, bob = Client(office, "alice", browser=browser), Client(office, "bob")
    for packet in (b"last but one", b"last"):
        alice.seal(wire.pack_send_packet(bob.key, packet))
    alice.raw(alice.outgoing.read() + GARBAGE if broken else alice.closes())
    packets = [(wire.RECV_PACKET, alice.key + packet) for packet in (b"last but one", b"last")]
    assert bob.hears() == [*packets, (wire.PEER_GONE, alice.key + bytes([wire.GONE_DISCONNECTED]))]
    assert alice.session.rx_packets == 2
    assert office.ended == [(alice.key, reason)]


def test_a_client_that_ends_tls_with_its_first_bytes_is_not_kept(office: Office) -> None:
    """All bytes came with the handshake, so no read of the link will report the end."""
    bob = Client(office, "bob")
    alice = Client(
        office,
        "alice",
        starts=lambda alice: alice.seal(wire.pack_send_packet(bob.key, b"only")) or alice.closes(),
    )
    office.end_tick()
    assert (wire.RECV_PACKET, alice.key + b"only") in bob.hears()
    assert office.ended == [(alice.key, "closed_by_client")]
