"""`relay.io.http_client.HttpClient` on httpcore and anyio: same interface, limits and proxies."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import replace
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from relay import __version__
from relay.io import http_client
from relay.io.http_client import MAX_REDIRECTS, ClientRequest, ClientResponse, HttpError, HttpTimeout
from relay.io.http_proxy import Proxy, basic_authorization, find_proxy

_DROPPED = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
_REFUSED = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError)
_FAILURES = (OSError, ValueError, OverflowError, *_REFUSED)


class HttpClient:
    """`unix_path` makes every request go to that socket; otherwise the URL says where."""

    def __init__(self, *, unix_path: str = "") -> None:
        self._unix_path = unix_path
        self._pools: dict[tuple[str, Proxy | None], httpcore.AsyncConnectionPool] = {}
        self._closing: list[asyncio.Task[None]] = []

    async def send(self, request: ClientRequest, timeout_s: float) -> ClientResponse:
        """Send a request and return its answer. Raises HttpError, HttpTimeout."""
        try:
            return await asyncio.wait_for(self._follow(request), timeout_s)
        except asyncio.TimeoutError:  # noqa: UP041  (no TimeoutError before Python 3.11)
            raise HttpTimeout(f"no answer within {timeout_s:g} s") from None

    def close(self) -> None:
        """Close the idle connections. httpcore can do so in a coroutine only."""
        loop = asyncio.get_running_loop()
        self._closing = [loop.create_task(pool.aclose()) for pool in self._pools.values()]
        self._pools = {}

    async def _follow(self, request: ClientRequest) -> ClientResponse:
        for _ in range(MAX_REDIRECTS):
            try:
                response = await self._ask(request)
                if response.status not in (307, 308) or not response.location:
                    return response
                request = replace(request, url=urljoin(request.url, response.location))
            except _FAILURES as e:
                raise HttpError(_reason(e)) from e
        raise HttpError(f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, request: ClientRequest) -> ClientResponse:
        url = urlsplit(request.url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("not an http:// or https:// URL")
        fresh = False

        async def trace(event: str, _info: object) -> None:
            nonlocal fresh
            fresh = fresh or event.startswith("connection.connect_")

        host = url.netloc.rpartition("@")[2]
        headers = [("Host", host), ("User-Agent", f"derp-relay/{__version__}")]
        headers += [("Content-Length", str(len(request.body))), *request.headers]
        headers += [("Authorization", login)] if (login := basic_authorization(url)) else []
        extensions = {"trace": trace}
        while True:
            try:
                async with self._pool(url).stream(
                    request.method, request.url, headers=headers, content=request.body, extensions=extensions
                ) as response:
                    return await _read(response, request.max_body)
            except _DROPPED:
                if fresh:
                    raise

    def _pool(self, url: SplitResult) -> httpcore.AsyncConnectionPool:
        proxy = None if self._unix_path else find_proxy(url, os.environ)
        pool = self._pools.get((url.scheme, proxy))
        if pool is None:
            through = None
            if proxy is not None:
                login = [("Proxy-Authorization", proxy.authorization)] if proxy.authorization else []
                through = httpcore.Proxy(f"http://{proxy.host}:{proxy.port}", headers=login)
            pool = self._pools[url.scheme, proxy] = httpcore.AsyncConnectionPool(
                ssl_context=ssl.create_default_context() if url.scheme == "https" else None,
                proxy=through,
                max_connections=None,
                max_keepalive_connections=1,
                keepalive_expiry=http_client.IDLE_S,
                uds=self._unix_path or None,
            )
        return pool


async def _read(response: httpcore.Response, max_body: int) -> ClientResponse:
    body = bytearray()
    async for part in response.aiter_stream():
        body += part
        if len(body) >= max_body:
            break
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    return ClientResponse(response.status, bytes(body[:max_body]), headers.get(b"location", ""))


def _reason(error: BaseException) -> str:
    """Return the operating system's words; anyio's own are "All connection attempts failed"."""
    while not isinstance(error, OSError) and (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error.__cause__ or error) or type(error).__name__
