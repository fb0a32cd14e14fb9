"""The relay's HTTP/1.1: a conversation from the first request to the upgrade to DERP.

h11 parses; no I/O, no clock. The answers are in `relay.http.answers`.

No page takes a body, so requests are heads, one behind the other. Each is cut off here and bounded
in bytes and fields before h11 sees it: h11 takes 160 ms for a body of 66 kB in small chunks, and 6
for a head of 1,500 fields, in which the relay would do nothing else.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import h11

from relay.core.reasons import Refusal
from relay.http import websocket

MAX_HEAD: Final = 4096  # bytes of a request; browsers with WebSockets send about 700
MAX_FIELDS: Final = 40
# Requests of one read that are answered. No client that we know sends a second before it has the
# answer.
MAX_PIPELINED: Final = 8

_STOCK_UPGRADE: Final = re.compile(
    rb"GET /derp HTTP/1\.1\r\nHost: [A-Za-z0-9.:\[\]-]+\r\nUser-Agent: Go-http-client/1\.1\r\n"
    rb"Connection: Upgrade\r\n"
    rb"(?P<fast>Derp-Fast-Start: 1\r\n)?(?:Ideal-Node: (?P<ideal>[A-Za-z0-9.-]+)\r\n)?Upgrade: DERP\r\n\r\n"
)

_ABSOLUTE: Final = re.compile("https?://([^/?]*)(.*)", re.IGNORECASE)
_HEAD_END: Final = re.compile(rb"\n\r?\n")  # h11's

Headers = tuple[tuple[str, str], ...]
TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Header names are in lower case.

    `peer` is the TCP peer's address, `client` the one behind our proxies.
    """

    method: str
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    peer: str
    client: str

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """Return the part of the target behind the question mark."""
        return self.target.partition("?")[2]

    def header(self, name: bytes) -> bytes:
        """Return the first header of that name, or b""."""
        return next((value for given, value in self.headers if given == name), b"")

    def every(self, name: bytes) -> list[str]:
        """Return all headers of that name, in order."""
        return [value.decode("latin-1") for given, value in self.headers if given == name]


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. `Content-Length` and `Date` are added when it is written.

    A body that comes in parts has no end: it goes on until the reader leaves.
    """

    status: int
    body: bytes | AsyncGenerator[bytes, None] = b""
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The connection speaks DERP from now on: send `answer` first.

    `rest` arrived behind the request.
    """

    answer: bytes
    rest: bytes
    is_websocket: bool
    not_ideal: bool
    request: Request


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that other processes have to be asked for.

    Send `said` now. Pass the result of `response` to `Conversation.resume` or `stream`.
    """

    said: bytes
    response: Awaitable[Response]


Said = bytes | Upgrade | Later
Answer = Response | Awaitable[Response]
Page = Callable[[Request], Answer]


@dataclass(frozen=True)
class Pages:
    """The pages of a listener, and the data that they show.

    `by_path` maps a path, or a prefix that ends with `/`, to its page.
    """

    public_key: bytes
    date: Callable[[], str]  # the Date header
    # The client's address from the peer's and X-Forwarded-For.
    client_of: Callable[[str, list[str]], str]
    derp: bool = True
    home: str = ""
    by_path: Mapping[str, Page] = field(default_factory=dict)


def match_stock_upgrade(data: bytes, pages: Pages, *, peer: str) -> Upgrade | None:
    """Return the upgrade if `data` begins with the very bytes that Tailscale's Go client sends.

    None means that `Conversation` has to read it. Nearly every client begins so, and h11 takes 28
    µs for the same: a tenth of a handshake's cost.
    """
    stock = _STOCK_UPGRADE.match(data)
    if stock is None or not pages.derp:
        return None
    request = Request("GET", "/derp", (), peer, pages.client_of(peer, []))
    said = b"" if stock["fast"] else pack_switching(pages.public_key)
    return Upgrade(said, data[stock.end() :], False, stock["ideal"] is not None, request)


def next_event(http: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
    """Return h11's next event. Raises h11.RemoteProtocolError.

    h11 raises it from a frame that holds it: a cycle of 28 objects for each bad request, which only
    the collector would free, in a pause for every client.
    """
    try:
        return http.next_event()
    except h11.RemoteProtocolError as error:
        error.__traceback__ = None
        raise


class Conversation:
    """One HTTP connection, until it ends or is upgraded.

    `receive` takes bytes and returns the answer.
    `fault` is the reason why it ends if the client is to blame, else None.
    """

    def __init__(self, pages: Pages, answer: Callable[[Request, Pages], Answer], *, peer: str) -> None:
        self.closing = False
        self.fault: Refusal | None = None
        self._pages = pages
        self._answer = answer
        self._peer = peer
        self._http = h11.Connection(h11.SERVER)
        self._request: Request | None = None
        self._rest = b""  # bytes that arrived behind the requests that h11 has seen
        self._answered = 0  # requests of this read

    def receive(self, data: bytes) -> Said:
        """Return bytes to send, the upgrade, or an answer to wait for.

        The bytes are b"" while a request is incomplete.
        If `closing` is set, end the connection after sending.
        """
        self._answered = 0
        self._rest += data
        if not data:
            self.closing = True
        return self._go_on([])

    def resume(self, response: Response) -> Said:
        """Return the answer that was waited for, and those to the requests behind it."""
        return self._go_on([self._settle(response)])

    def stream(self, response: Response) -> bytes:
        """Return the head of an answer whose body comes in parts."""
        headers = [*response.headers, ("Date", self._pages.date())]
        head = h11.Response(status_code=response.status, headers=headers, reason=b"OK")
        return self._http.send(head) or b""

    def part(self, data: bytes) -> bytes:
        """Return one part of such a body as bytes to send."""
        return self._http.send(h11.Data(data=data)) or b""

    def _go_on(self, out: list[bytes]) -> Said:
        """Answer the whole requests that are here, behind the answers in `out`."""
        try:
            while not self.closing and (head := self._cut_head()):
                self._http.receive_data(head)
                event = next_event(self._http)
                # A whole head is a request, or h11 raises; this is for the type checker.
                assert isinstance(event, h11.Request)  # noqa: S101
                self._request = self._read(event)
                if event.method == b"PRI" or not event.http_version.startswith(b"1."):
                    # HTTP/2 begins with a PRI; derper answers so, too.
                    out.append(self._refuse(400 if event.method == b"PRI" else 505, Refusal.BAD_HTTP))
                    break
                if _has_body(event):
                    out.append(self._refuse(413, Refusal.HTTP_BODY_TOO_LONG))
                    break
                next_event(self._http)  # the end of a request without a body
                done = self._finish()
                if isinstance(done, Upgrade):
                    return replace(done, answer=b"".join(out) + done.answer)
                if isinstance(done, Later):
                    return Later(b"".join(out), done.response)
                out.append(done)
        except h11.RemoteProtocolError as error:
            out.append(self._refuse(error.error_status_hint, Refusal.BAD_HTTP))
        return b"".join(out)

    def _cut_head(self) -> bytes:
        """Return the next request, or b"" while it is not whole. Raises h11.RemoteProtocolError."""
        if self._rest and self._rest[0] <= 0x20:  # as h11: TLS begins so, and no request
            raise h11.RemoteProtocolError("illegal request line")
        end = _HEAD_END.search(self._rest, 0, MAX_HEAD)
        if end is None:
            if len(self._rest) >= MAX_HEAD:
                raise h11.RemoteProtocolError("head too long", error_status_hint=431)
            return b""
        head, self._rest = self._rest[: end.end()], self._rest[end.end() :]
        if head.count(b"\n") - 2 > MAX_FIELDS:
            raise h11.RemoteProtocolError("too many fields", error_status_hint=431)
        return head

    def _read(self, event: h11.Request) -> Request:
        headers = tuple(event.headers)
        method, target = event.method.decode("ascii"), event.target.decode("latin-1")
        if absolute := _ABSOLUTE.match(target):  # as to a proxy: its host counts (RFC 9112, 3.2.2)
            host, path = absolute.groups()
            headers = ((b"host", host.encode("latin-1")), *headers)
            target = path if path.startswith("/") else f"/{path}"
        request = Request(method, target, headers, self._peer, self._peer)
        client = self._pages.client_of(self._peer, request.every(b"x-forwarded-for"))
        return replace(request, client=client)

    def _finish(self) -> Said:
        """Answer the request that is now complete."""
        request = self._request
        assert request is not None  # noqa: S101  (for the type checker)
        if request.method == "CONNECT":  # no tunnels; h11 would take any 2xx answer for one
            return self._settle(error(403, "CONNECT not enabled"))
        response = self._answer(request, self._pages)
        if not isinstance(response, Response):
            return Later(b"", response)
        if response is not UPGRADE:
            return self._settle(response)
        upgrade = self._upgrade(request)
        return upgrade if isinstance(upgrade, Upgrade) else self._settle(upgrade)

    def _settle(self, response: Response) -> bytes:
        """Write the answer, and be ready for the next request."""
        assert self._request is not None  # noqa: S101  (for the type checker)
        self._answered += 1
        if self._answered == MAX_PIPELINED:
            self._blame(Refusal.TOO_MANY_HTTP_REQUESTS)
        sent = self._write(response, is_head=self._request.method == "HEAD")
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self.closing = True
        return sent

    def _upgrade(self, request: Request) -> Upgrade | Response:
        """Upgrade to raw DERP, or to a WebSocket if the client asks for one with `derp`.

        Very old clients ask for a WebSocket without it, and speak raw DERP.
        """
        rest = self._rest
        not_ideal = bool(request.header(b"ideal-node"))
        is_websocket = request.header(b"upgrade").lower() == b"websocket"
        if is_websocket and b"derp" in request.header(b"sec-websocket-protocol"):
            try:
                answer = websocket.accept_upgrade(request.method, request.headers)
            except websocket.UpgradeRefused as refused:
                return Response(refused.status, f"{refused}\n".encode(), (TEXT, *refused.headers))
            return Upgrade(answer, rest, True, False, request)
        fast = request.header(b"derp-fast-start") == b"1"
        answer = b"" if fast else pack_switching(self._pages.public_key)
        return Upgrade(answer, rest, False, not_ideal, request)

    def _blame(self, fault: Refusal) -> None:
        self.closing, self.fault = True, fault

    def _refuse(self, status: int, fault: Refusal) -> bytes:
        self._blame(fault)
        text = _REASONS.get(status, b"Bad Request").lower() + b"\n"
        return self._write(Response(status, text, (TEXT,)), is_head=False)

    def _write(self, response: Response, *, is_head: bool) -> bytes:
        # A body in parts goes through `stream`; this is for the type checker.
        assert isinstance(response.body, bytes)  # noqa: S101
        headers = [*response.headers, ("Date", self._pages.date())]
        if response.status >= 200 and response.status != 204:
            headers.append(("Content-Length", str(len(response.body))))
        if self.closing:
            headers.append(("Connection", "close"))
        http, reason = self._http, _REASONS.get(response.status, b"")
        sent = http.send(h11.Response(status_code=response.status, headers=headers, reason=reason)) or b""
        if response.body and not is_head:
            sent += http.send(h11.Data(data=response.body)) or b""
        return sent + (http.send(h11.EndOfMessage()) or b"")


UPGRADE: Final = Response(101)  # `answer` returns it for a request that is to be upgraded

_REASONS: Final = {
    200: b"OK",
    204: b"No Content",
    302: b"Found",
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    426: b"Upgrade Required",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    505: b"HTTP Version Not Supported",
}


def _has_body(event: h11.Request) -> bool:
    """Whether a body follows, in which h11 has checked that the length is a number."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in event.headers
    )


def pack_switching(public_key: bytes) -> bytes:
    """Return the answer to a normal upgrade, with no other header, as the reference has it."""
    lines = ("HTTP/1.1 101 Switching Protocols", "Upgrade: DERP", "Connection: Upgrade", "Derp-Version: 2")
    return ("\r\n".join(lines) + f"\r\nDerp-Public-Key: {public_key.hex()}\r\n\r\n").encode()


def error(status: int, text: str) -> Response:
    """Return a plain-text answer of one line."""
    return Response(status, f"{text}\n".encode(), (TEXT, ("X-Content-Type-Options", "nosniff")))
