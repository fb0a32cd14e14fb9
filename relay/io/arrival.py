"""A connection before its client is admitted: PROXY header, TLS, HTTP, DERP's handshake, admission.

None of it is hot. Each stage is a method that takes plain bytes; the next stage gets the bytes that
the last one left over. Everything is bounded in time (`deadline`, swept by the server) and in size
before anything is trusted.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from relay.core import handshake
from relay.core.addresses import Ticket, TooMany
from relay.core.reasons import CLOSED_IN, Breach, Refusal, WhyRefused
from relay.core.wire import HEADER_LEN, MAX_CLIENT_INFO, ProtocolError, pack_server_key
from relay.http import answers, http11
from relay.http.proxy_header import ProxyHeaderError, parse_proxy_header
from relay.http.websocket import WebSocket, offers_derp
from relay.io.link import CIPHER, Link, TlsLink, WebSocketLink
from relay.io.stream import Receiver, Stream
from relay.io.tls import Channel, TlsChannel
from relay.log import Log

if TYPE_CHECKING:
    import ssl

    from relay.io.reception import Reception

HTTP_IDLE_S: Final = 30.0  # derper's read timeout, here between requests
MAX_UNREAD: Final = 64 * 1024  # bytes of answers that wait for their reader when it asks for more
MAX_EARLY: Final = MAX_CLIENT_INFO + 64 * 1024  # bytes that a client may send before it is admitted
LOG: Final = Log("server")


class Arrival(Receiver):
    """One connection until it is admitted, or gone."""

    buffer = CIPHER

    def __init__(
        self,
        reception: Reception,
        stream: Stream,
        address: tuple[str, int],
        *,
        pages: http11.Pages,
        answer: Callable[[http11.Request, http11.Pages], http11.Answer],
        context: ssl.SSLContext | None,
        proxied: bool,
        worker: bool = False,
    ) -> None:
        self._reception = reception
        self._stream = stream
        self._channel: Channel = TlsChannel(context) if context is not None else Channel()
        self._pages = pages
        self._answer = answer
        self._ticket: Ticket | None = None
        self._client = address  # the client's own, as far as it is known
        self._peer = address[0]  # the TCP peer's
        self._websocket: WebSocket | None = None
        self._not_ideal = False
        self._worker = worker  # on the socket for other workers of this relay, who do not count
        self._early = bytearray()  # bytes that no stage has taken yet
        self._timeout = Refusal.TIMEOUT_HTTP if context is None else Refusal.TIMEOUT_TLS
        self._conversation: http11.Conversation
        self._behind_proxy: Channel | None = None  # the channel that begins after the PROXY header
        self._stage: Callable[[bytes], None] = self._open
        self._done = False
        self.deadline = reception.loop.time() + reception.handshake_timeout_s
        reception.arrivals[self] = None
        stream.set_receiver(self)
        through_proxy = proxied and reception.proxies.trusts(self._peer)
        if reason := reception.refuses_connection(main=proxied and answer is answers.answer):
            self._refuse(reason)
        elif not through_proxy:
            self._enter()
        elif reception.proxies.send_header:
            self._stage, self._channel, self._behind_proxy = self._read_proxy_header, Channel(), self._channel

    # Called by the stream.

    def buffer_updated(self, nbytes: int) -> None:
        self._arrived(CIPHER[:nbytes])

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()
        self._reception.arrivals.pop(self, None)

    # Called by the relay.

    def expire(self) -> None:
        """End the connection: its deadline has passed."""
        self.give_up(self._timeout)

    def give_up(self, reason: Refusal) -> None:
        """Close the connection: send a refusal, or abort if the answer has been sent already."""
        if self._done:
            self._stream.abort()
        else:
            self._refuse(reason)

    # Stages.

    def _arrived(self, data: bytes | memoryview) -> None:
        if self._done:
            return
        channel = self._channel
        try:
            was_shaking = isinstance(channel, TlsChannel) and not channel.shaken
            plain = channel.unseal(data)
            if reply := channel.take_reply():
                self._stream.write(reply)
                self._step()  # the client's hello was whole
            if isinstance(channel, TlsChannel) and was_shaking and channel.shaken:
                self._shaken(channel)
            if plain:
                self._stage(plain)
            if isinstance(channel.closed, Breach):
                self._refuse(channel.closed)
            elif channel.closed:
                self._gone()
        except (ProtocolError, ProxyHeaderError, TooMany) as error:
            self._refuse(error.reason)

    def _step(self) -> None:
        """Note that the handshake has got further. Bytes alone are no step."""
        if self._ticket is not None:
            self._ticket.step(self._reception.loop.time())

    def _shaken(self, channel: TlsChannel) -> None:
        self._step()
        self.deadline = self._reception.loop.time() + self._reception.handshake_timeout_s
        self._timeout = Refusal.TIMEOUT_HTTP
        self._reception.tally.tls_request_version.add(str(channel.tls.version()).removeprefix("TLSv"))

    def _read_proxy_header(self, data: bytes) -> None:
        self._early += data
        header = parse_proxy_header(bytes(self._early))
        if header is None:
            return
        if header.source is not None:
            self._client = header.source
            self._peer = header.source[0]
        self._enter()
        rest = bytes(self._early[header.size :])
        self._early.clear()
        self._channel, self._stage = self._behind_proxy or self._channel, self._open
        if rest and not self._done:
            self._arrived(rest)

    def _open(self, data: bytes) -> None:
        """Take the first plain bytes: nearly always a stock client's upgrade."""
        self._step()
        if self._answer is answers.answer:
            upgrade = http11.match_stock_upgrade(data, self._pages, peer=self._peer)
            if upgrade is not None:
                self._upgrade(upgrade)
                return
        self._conversation = http11.Conversation(self._pages, self._answer, peer=self._peer)
        self._stage = self._converse
        self._converse(data)

    def _converse(self, data: bytes) -> None:
        """Speak HTTP until the upgrade."""
        if self._stream.unsent > MAX_UNREAD:
            self._refuse(Refusal.SLOW_READER)
            self._stream.abort()
            return
        self._say(self._conversation.receive(data))

    def _say(self, said: http11.Said) -> None:
        if isinstance(said, http11.Upgrade):
            self._upgrade(said)
            return
        if isinstance(said, http11.Later):
            self._stage = self._wait
            self._reception.spawn(self._answer_later(said.response))
            said = said.said
        if said:
            self._send(said)
            self.deadline = self._reception.loop.time() + HTTP_IDLE_S
        if fault := self._conversation.fault:
            self._refuse(fault)
        elif self._conversation.closing:
            self._end()

    async def _answer_later(self, answer: Awaitable[http11.Response]) -> None:
        """Answer with a page that asks the other workers, or one that has no end."""
        response = await answer
        if self._done:
            return
        if not isinstance(response.body, bytes):
            await self._answer_in_parts(response, response.body)
            return
        self._stage = self._converse
        early = bytes(self._early)
        self._early.clear()
        try:
            self._say(self._conversation.resume(response))
            if early:
                self._stage(early)
        except (ProtocolError, TooMany) as error:
            self._refuse(error.reason)

    async def _answer_in_parts(self, response: http11.Response, parts: AsyncGenerator[bytes, None]) -> None:
        """Send parts until the reader leaves; one that is slow misses some."""
        self._send(self._conversation.stream(response))
        async with aclosing(parts):
            async for part in parts:
                if self._done:
                    return
                self.deadline = self._reception.loop.time() + HTTP_IDLE_S
                if part and not self._stream.unsent:
                    self._send(self._conversation.part(part))

    def _upgrade(self, upgrade: http11.Upgrade) -> None:
        client = upgrade.request.client
        self._client = (client, self._client[1] if client == self._peer else 0)
        if self._ticket is None:
            self._enter()
        self._greet(upgrade)

    def _greet(self, upgrade: http11.Upgrade) -> None:
        """Speak DERP from here on: send our key, and expect the client's."""
        self._step()
        reception = self._reception
        reception.switch.counts.accepts += not self._worker
        self.deadline = reception.loop.time() + reception.handshake_timeout_s
        self._not_ideal = upgrade.not_ideal
        greeting = pack_server_key(reception.key.public)
        if upgrade.is_websocket:
            reception.switch.counts.websocket_accepts += 1
            if not offers_derp(upgrade.request.headers):
                self._send(upgrade.answer)  # it ends with a close frame
                self._refuse(Refusal.WEBSOCKET_WITHOUT_DERP)
                return
            self._websocket = WebSocket()
            greeting = self._websocket.pack(greeting)
        self._send(upgrade.answer + greeting)
        self._stage, self._timeout = self._read_introduction, Refusal.TIMEOUT_CLIENT_INFO
        if upgrade.rest:
            self._read_introduction(upgrade.rest)

    def _read_introduction(self, data: bytes) -> None:
        if self._websocket is not None:
            data, reply = self._websocket.feed(data)
            if reply:
                self._send(reply)
            if self._websocket.closed:
                self._refuse(Refusal.WEBSOCKET_CLOSED, self._websocket.closed)
                return
        self._early += data
        payload = handshake.cut_client_info(self._early)
        if payload is None:
            return
        introduction = handshake.parse_client_info(payload, self._reception.key.private)
        del self._early[: HEADER_LEN + len(payload)]
        self._step()
        self._stage, self._timeout = self._wait, Refusal.TIMEOUT_ADMISSION
        is_mesh = self._reception.is_mesh_peer(introduction.info)
        if not is_mesh and (reason := self._reception.refuses_client(introduction.info)):
            self._refuse(reason)
        elif is_mesh or self._reception.admission.is_open:
            self._admit(introduction)
        else:
            self._stream.pause_reading()
            self._reception.spawn(self._ask(introduction))

    def _wait(self, data: bytes) -> None:
        """Keep bytes that were read before admission paused the reading."""
        self._early += data
        if len(self._early) > MAX_EARLY:
            self._refuse(Refusal.TOO_EARLY)

    async def _ask(self, introduction: handshake.Introduction) -> None:
        verdict = await self._reception.admission.admit(
            introduction.key, self._client[0], lambda: not self._done
        )
        if self._done:
            return
        if not verdict.allowed:
            LOG.info(
                "client refused",
                key=introduction.key.hex(),
                address=self._client[0],
                reason=verdict.reason,
                detail=verdict.detail,
            )
            self._refuse(verdict.reason)
            return
        self._stream.resume_reading()  # unless the link pauses it at once
        self._admit(introduction)

    def _admit(self, introduction: handshake.Introduction) -> None:
        """Hand the connection over to a link, which lives as long as the client stays."""
        link: Link
        if self._websocket is not None:
            link = WebSocketLink(self._reception, self._stream, self._channel, self._websocket)
        elif isinstance(self._channel, TlsChannel):
            link = TlsLink(self._reception, self._stream, self._channel)
        else:
            link = Link(self._reception, self._stream, self._channel)
        ticket, self._ticket = self._ticket, None
        self._leave()
        del self._reception.arrivals[self]
        session = self._reception.admit(
            link, introduction, ticket, peer=self._client, not_ideal=self._not_ideal
        )
        server_info = handshake.pack_server_info(introduction.shared, handshake.ServerInfo())
        link.start(session, server_info, bytes(self._early))

    # Endings.

    def _enter(self) -> None:
        """Count this connection for its address.

        If too many are unfinished already, the one that has got no further for longest is refused:
        a client needs only a moment for each step.
        """
        try:
            now = self._reception.loop.time()
            self._ticket = self._reception.addresses.enter(self._client[0], self, now)
        except TooMany as refused:
            if refused.oldest is None:
                self._refuse(refused.reason)
                return
            refused.oldest.give_up(refused.reason)
            self._enter()

    def _send(self, data: bytes) -> None:
        self._stream.write(self._channel.seal(data))

    def _refuse(self, reason: WhyRefused, code: int = 0) -> None:
        """Close behind everything written. The reason is counted; DERP has no frame to send it."""
        if not self._done:
            self._reception.tally.refusals.add(reason, code)
            self._end()

    def _gone(self) -> None:
        """End: the client closed the connection, as every conversation over HTTP ends."""
        if self._timeout in CLOSED_IN:
            self._refuse(CLOSED_IN[self._timeout])
        else:
            self._end()

    def _end(self) -> None:
        """Close when everything is written. It stays in `arrivals`: this too has a deadline."""
        if not self._done:
            self._leave()
            self._stream.close()

    def _leave(self) -> None:
        self._done = True
        self._stage = _ignore  # not one of our bound methods, which would be a cycle to collect
        if self._ticket is not None:
            self._ticket.leave()
            self._ticket = None


def _ignore(_data: bytes) -> None:
    """The stage of a connection that is over."""
