"""A controller whose kernel has no IPv6: that is no fault of the relay (K10)."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from probe.net import NoRoute, connect
from probe.stun import measure


@pytest.fixture
def without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    class Socket(real):  # type: ignore[misc, valid-type]  # its base is a variable
        def __init__(self, family: int = -1, *more: object, **options: object) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *more, **options)

    monkeypatch.setattr(socket, "socket", Socket)


@pytest.mark.usefixtures("without_ipv6")
def test_tcp_is_skipped() -> None:
    with pytest.raises(NoRoute, match="no route to 2001:db8::1"):
        asyncio.run(connect("2001:db8::1", 443))


@pytest.mark.usefixtures("without_ipv6")
def test_stun_is_skipped() -> None:
    with pytest.raises(NoRoute, match="no route to 2001:db8::1"):
        asyncio.run(measure("2001:db8::1", 3478, 1.0))
