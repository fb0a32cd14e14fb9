"""One HTTP/1.1 request at a time over asyncio: no more than admission needs.

TCP, TLS (the system's trust store, or SSL_CERT_FILE) or a unix socket. One idle connection is kept,
because a TLS handshake per admitted client would cost more than the rest of its handshake.
Redirects that keep the method (307, 308) are followed, but not from https to http. Proxies that the
environment names are used (http_proxy.py). h11 parses, and limits the head to 16 KiB. httpcore
takes four times the CPU time per request (docs/ARCHITECTURE.md).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import h11

from relay import __version__
from relay.http.http11 import next_event
from relay.io.http_proxy import Proxy, basic_authorization, find_proxy, open_tunnel

IDLE_S: Final = 30.0  # headscale and the usual proxies hang up later than this
MAX_REDIRECTS: Final = 5
NEXT_ADDRESS_S: Final = 0.3  # a host's next address is tried as well after this time; Go's


class HttpError(Exception):
    """No answer, or not all of it: not connected, not HTTP. The text says which.

    `answered` is whether the head of the last answer came.
    """

    def __init__(self, text: str, *, answered: bool = False) -> None:
        super().__init__(text)
        self.answered = answered


class HttpTimeout(HttpError):
    """No answer in time."""


@dataclass(frozen=True)
class ClientRequest:
    """One request. At most `max_body` bytes of the answer's body are read.

    Name and password in the URL become basic authentication.
    """

    method: str
    url: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    max_body: int = 4096


@dataclass(frozen=True)
class ClientResponse:
    status: int
    body: bytes
    location: str = ""


@dataclass
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    origin: tuple[str, str]
    proxy: Proxy | None = None  # one that reads our requests; None if it only tunnels
    idle_since: float = 0.0
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))


class HttpClient:
    """A client that keeps one idle connection. With `unix_path`, all requests go to that socket."""

    def __init__(self, *, unix_path: str = "") -> None:
        self._unix_path = unix_path
        self._idle: _Connection | None = None
        self._context: ssl.SSLContext | None = None

    async def send(self, request: ClientRequest, timeout_s: float) -> ClientResponse:
        """Send a request and return its answer; `timeout_s` is for everything together.

        Raises HttpError, HttpTimeout.
        """
        heads: list[int] = []
        try:
            return await asyncio.wait_for(self._follow(request, heads), timeout_s)
        except asyncio.TimeoutError:  # no TimeoutError before Python 3.11
            what = "the answer did not end" if heads else "no answer"
            raise HttpTimeout(f"{what} within {timeout_s:g} s", answered=bool(heads)) from None

    def close(self) -> None:
        """Close the idle connection."""
        if self._idle:
            self._idle.writer.close()
            self._idle = None

    async def _follow(self, request: ClientRequest, heads: list[int]) -> ClientResponse:
        """Return the answer behind all redirects. `heads` gets the status of the last head."""
        for _ in range(MAX_REDIRECTS):
            heads.clear()
            try:
                response = await self._ask(request, heads)
                if response.status not in (307, 308) or not response.location:
                    return response
                url = urljoin(request.url, response.location)
                if urlsplit(request.url).scheme == "https" and urlsplit(url).scheme == "http":
                    raise HttpError("it redirects from https to http, where anyone between may answer")
                request = replace(request, url=url)
            except (OSError, h11.ProtocolError, ValueError) as e:
                raise HttpError(str(e) or type(e).__name__, answered=bool(heads)) from e
        raise HttpError(f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, request: ClientRequest, heads: list[int]) -> ClientResponse:
        url = urlsplit(request.url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("not an http:// or https:// URL")
        kept = self._take_idle(url)
        if kept:
            try:
                return await self._exchange(kept, request, url, heads)
            except (ConnectionError, h11.RemoteProtocolError):
                # The server closed it while our request was on the way; ask again on a fresh one.
                pass
        return await self._exchange(await self._connect(url), request, url, heads)

    def _take_idle(self, url: SplitResult) -> _Connection | None:
        """Return the idle connection if it leads there and is fresh enough; else close it."""
        kept = self._idle
        if kept is None:
            return None
        age_s = asyncio.get_running_loop().time() - kept.idle_since
        if kept.origin != (url.scheme, url.netloc) or age_s > IDLE_S or kept.reader.at_eof():
            self.close()
            return None
        self._idle = None
        return kept

    async def _connect(self, url: SplitResult) -> _Connection:
        origin = (url.scheme, url.netloc)
        if self._unix_path:
            return _Connection(*await asyncio.open_unix_connection(self._unix_path), origin)
        proxy, host = find_proxy(url, os.environ), url.hostname or ""
        if url.scheme == "http":
            place = (proxy.host, proxy.port) if proxy else (host, url.port or 80)
            streams = await asyncio.open_connection(*place, happy_eyeballs_delay=NEXT_ADDRESS_S)
            return _Connection(*streams, origin, proxy)
        self._context = self._context or ssl.create_default_context()
        port = url.port or 443
        if proxy is None:
            streams = await asyncio.open_connection(
                host, port, ssl=self._context, happy_eyeballs_delay=NEXT_ADDRESS_S
            )
            return _Connection(*streams, origin)
        tunnel = await open_tunnel(proxy, host, port)
        streams = await asyncio.open_connection(sock=tunnel, ssl=self._context, server_hostname=host)
        return _Connection(*streams, origin)

    async def _exchange(
        self, connection: _Connection, request: ClientRequest, url: SplitResult, heads: list[int]
    ) -> ClientResponse:
        """Send one request and return its answer; then keep the connection, or close it."""
        try:
            connection.writer.write(_pack_request(connection, request, url))
            await connection.writer.drain()
            response = await _read_response(connection, request.max_body, heads)
        except BaseException:
            connection.writer.close()
            raise
        if connection.http.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE} and self._idle is None:
            connection.http.start_next_cycle()
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle = connection
        else:
            connection.writer.close()
        return response


def _pack_request(connection: _Connection, request: ClientRequest, url: SplitResult) -> bytes:
    http, proxy = connection.http, connection.proxy
    host = url.netloc.rpartition("@")[2]
    headers = [("Host", host), ("User-Agent", f"derp-relay/{__version__}")]
    headers.append(("Content-Length", str(len(request.body))))
    logins = {"Authorization": basic_authorization(url)}
    logins["Proxy-Authorization"] = proxy.authorization if proxy else ""
    headers += [(name, value) for name, value in logins.items() if value]
    target = (f"http://{host}" if proxy else "") + (url.path or "/") + (f"?{url.query}" if url.query else "")
    head = http.send(h11.Request(method=request.method, target=target, headers=[*headers, *request.headers]))
    body = http.send(h11.Data(data=request.body))
    return (head or b"") + (body or b"") + (http.send(h11.EndOfMessage()) or b"")


async def _read_response(connection: _Connection, max_body: int, heads: list[int]) -> ClientResponse:
    """Read the answer, and no more of a longer body. Raises h11.RemoteProtocolError, OSError."""
    status, location, body = 0, "", bytearray()
    while len(body) < max_body:
        event = next_event(connection.http)
        if event is h11.NEED_DATA:
            connection.http.receive_data(await connection.reader.read(65_536))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if status not in (307, 308):
                heads.append(status)
            given = (value.decode("latin-1") for name, value in event.headers if name == b"location")
            location = next(given, "")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            break
    return ClientResponse(status, bytes(body[:max_body]), location)
