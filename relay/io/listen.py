"""Listening sockets, with the options that derper sets, and the connections accepted on them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from relay.config import Config
from relay.io.loop import Loop
from relay.io.stream import Stream
from relay.log import Log

ACCEPT_BACKLOG: Final = 4096  # connections that wait to be accepted; net.core.somaxconn may lower it
MAX_ACCEPTS: Final = 64  # per round of the loop; then existing connections get their turn
ACCEPT_RETRY_S: Final = 1.0  # after an accept that found no descriptor or no memory
LOG: Final = Log("listen")


class ListeningSocket:
    """Accepts on one socket. `welcome` gets each connection with its peer's address and port.

    On a unix socket these are "" and 0.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, welcome: Callable[[Stream, tuple[str, int]], object]
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._welcome = welcome
        self._loop.poller.call(sock.fileno(), self._accept)
        self._is_waiting = True

    def close(self) -> None:
        """Stop accepting."""
        self._pause()
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS):
            try:
                sock, address = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                LOG.warning("cannot accept connections, will try again", error=error, seconds=ACCEPT_RETRY_S)
                self._pause()
                self._loop.call_later(ACCEPT_RETRY_S, self._resume)
                return
            sock.setblocking(False)
            self._welcome(Stream(self._loop, sock), address[:2] if isinstance(address, tuple) else ("", 0))

    def _pause(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._loop.poller.forget(self._socket.fileno())

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._is_waiting = True
            self._loop.poller.call(self._socket.fileno(), self._accept)


def take(handed: list[socket.socket], kind: socket.SocketKind, port: int) -> list[socket.socket]:
    """Return the sockets for this port that systemd handed over, and remove them from `handed`."""
    found = [sock for sock in handed if sock.type == kind and sock.getsockname()[1] == port]
    handed[:] = [sock for sock in handed if sock not in found]
    return found


def open_tcp(host: str, port: int, config: Config, handed: list[socket.socket]) -> list[socket.socket]:
    """Return listening sockets for `host`, or for every IPv4 and IPv6 address if it is empty.

    Sockets that were handed over for this port are used instead. Accepted connections inherit the
    options: DERP has its own keep-alive, so TCP's is rare, and unacknowledged data ends a
    connection fast. Raises OSError.
    """
    sockets = take(handed, socket.SOCK_STREAM, port)
    sockets = sockets or _open(host, port, socket.SOCK_STREAM, reuse_port=config.workers > 1)
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(config.tcp_keepalive_time_s)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(config.tcp_user_timeout_s * 1000))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.listen(ACCEPT_BACKLOG)
    return sockets


def open_udp(
    host: str, port: int, handed: list[socket.socket], *, reuse_port: bool = False
) -> list[socket.socket]:
    """Return bound sockets, chosen as in `open_tcp`. Raises OSError."""
    sockets = take(handed, socket.SOCK_DGRAM, port)
    return sockets or _open(host, port, socket.SOCK_DGRAM, reuse_port=reuse_port)


def open_unix(path: str) -> socket.socket:
    """Return a listening unix socket for root and this process's user.

    One that is left over is replaced. Raises OSError.
    """
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108  (a socket's path is text)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind(path)
    os.chmod(path, 0o600)  # noqa: PTH101  (as above) nobody can connect before `listen`
    sock.listen(ACCEPT_BACKLOG)
    return sock


def _open(host: str, port: int, kind: int, *, reuse_port: bool) -> list[socket.socket]:
    """Return bound sockets. A host without IPv6 is no error if `host` is empty."""
    wanted = [host] if host else ["0.0.0.0", "::"]  # noqa: S104  (an empty host: every address)
    sockets: list[socket.socket] = []
    for address in wanted:
        try:
            family, _, _, _, where = socket.getaddrinfo(address, port, type=kind, flags=socket.AI_PASSIVE)[0]
            sock = socket.socket(family, kind)
        except OSError:
            if sockets:
                continue
            raise
        try:
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
        except OSError as error:
            sock.close()
            if not host and family == socket.AF_INET6 and sockets and error.errno != errno.EADDRINUSE:
                continue
            with suppress(OSError):
                for other in sockets:
                    other.close()
            raise OSError(error.errno, f"cannot listen on {address} port {port}: {error.strerror}") from error
        sockets.append(sock)
    return sockets
