"""The proxy for a URL, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as in Go's ProxyFromEnvironment.

derper asks its admission controller with Go's default transport, which follows them. The names may
be in either letter case; the capital one wins. Loopback is never asked through a proxy. A proxy has
to speak plain HTTP (`http://[name:password@]host[:port]`, or without the scheme). One that needs
TLS or SOCKS is an error, and not bypassed. Source: golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

import h11

from relay.http.http11 import next_event


@dataclass(frozen=True)
class Proxy:
    """A proxy's address, and the value of the Proxy-Authorization header, or ""."""

    host: str
    port: int
    authorization: str = ""


def find_proxy(url: SplitResult, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy, or None for a direct connection.

    Raises ValueError if the variable names a proxy of a kind that we cannot use.
    """
    name = f"{url.scheme}_proxy"
    text = environ.get(name.upper()) or environ.get(name) or ""
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    exempt = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not text or _is_loopback(host) or _is_exempt(host, port, exempt):
        return None
    proxy = urlsplit(text if "://" in text else f"http://{text}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise ValueError(f"{name.upper()} is not http://host:port")
    return Proxy(proxy.hostname, proxy.port or 80, basic_authorization(proxy))


def basic_authorization(url: SplitResult) -> str:
    """Return the header's value for the name and password in a URL; "" without."""
    if not url.username:
        return ""
    login = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return "Basic " + base64.b64encode(login.encode()).decode()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether one of the comma-separated entries fits.

    An entry is `*`, an address, a CIDR, `name` (with all names below it) or `.name` (only those
    below it).
    """
    return any(_fits(entry.strip().lower(), host.lower().rstrip("."), port) for entry in no_proxy.split(","))


def _fits(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass  # one of them is a name, or has a port
    name, colon, number = entry.rpartition(":")
    if colon and number.isdecimal():
        if int(number) != port:
            return False
        entry = name.strip("[]")
    entry = entry[1:] if entry.startswith("*.") else entry
    below = entry if entry.startswith(".") else f".{entry}"
    return bool(entry) and (host == entry or host.endswith(below))


async def open_tunnel(proxy: Proxy, host: str, port: int) -> socket.socket:
    """Return a connected, non-blocking socket that leads through the proxy.

    Raises OSError, h11.RemoteProtocolError.
    """
    loop = asyncio.get_running_loop()
    sock = await _connect(proxy)
    try:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        login = [("Proxy-Authorization", proxy.authorization)] if proxy.authorization else []
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method="CONNECT", target=where, headers=[("Host", where), *login])
        await loop.sock_sendall(sock, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        while (event := next_event(http)) is h11.NEED_DATA:
            http.receive_data(await loop.sock_recv(sock, 4096))
        if not isinstance(event, h11.Response) or not 200 <= event.status_code < 300:
            status = event.status_code if isinstance(event, h11.Response) else "nothing"
            raise OSError(f"the proxy {proxy.host}:{proxy.port} answers {status} to CONNECT {where}")
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(proxy: Proxy) -> socket.socket:
    """Connect to the first of the proxy's addresses that can be reached."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"the proxy {proxy.host} has no address")
    found = await loop.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure
