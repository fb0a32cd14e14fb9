"""TCP: the ports are open, on every address that the relay has."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from probe.net import NoRoute, Patience, connect, within
from probe.proof import Broken, Found, Skip, duration
from probe.target import Part, Target


async def dial(address: str, port: int, target: Target, patience: Patience) -> socket.socket:
    """Return a connected socket.

    Raises Broken, or NoRoute when this controller lacks the address family.
    """
    where = f"{address} port {port}/tcp"
    late = Broken(
        f"{where} did not answer in {patience.tcp_s:g} s",
        cause="a packet filter drops the packets: the provider's security group, or the host's firewall",
        next=(
            f"open {port}/tcp in the provider's console, then "
            f"{target.redeploy(Part.FIREWALL, 'open it on the host')}"
        ),
        data=_unanswered(address, port),
    )
    async with within(patience.tcp_s, late, partial(_unconnected, target, address, port)):
        return await connect(address, port)


@dataclass(frozen=True)
class Dialled:
    """A connection to `address` that is being made. `connection`: see `dial`."""

    address: str
    connection: asyncio.Task[socket.socket]


@contextlib.asynccontextmanager
async def dialling(
    addresses: Sequence[str], port: int, target: Target, patience: Patience
) -> AsyncIterator[list[Dialled]]:
    """Dial a connection to each of these addresses while the block works. Its end closes them."""
    dialled = [
        Dialled(address, asyncio.create_task(dial(address, port, target, patience))) for address in addresses
    ]
    try:
        yield dialled
    finally:
        for each in dialled:
            each.connection.cancel()
        for found in await asyncio.gather(*(each.connection for each in dialled), return_exceptions=True):
            if isinstance(found, socket.socket):
                found.close()


def _unanswered(address: str, port: int) -> dict[str, Any]:
    """Return a broken rung's data, for `probe.arrivals`."""
    return {"unanswered": {"proto": "tcp", "address": address, "port": port}}


def _unconnected(target: Target, address: str, port: int, error: OSError) -> Broken:
    """Return the reason why a connection failed."""
    where = f"{address} port {port}/tcp"
    if isinstance(error, ConnectionRefusedError):
        return Broken(
            f"{where} refused the connection",
            cause="the host is up, but nothing listens on that port",
            next=target.redeploy(Part.FRONT, f"start the program that has to listen on port {port}"),
        )
    cause, step, data = "the connection failed", f"ping {address}", {}
    if error.errno == errno.EHOSTUNREACH:  # also after -j REJECT --reject-with icmp-host-prohibited
        data = _unanswered(address, port)
        cause = "the address is not reachable from here, or the host's own packet filter rejects that port"
        step += f" and iptables -S INPUT on the host, which has to accept {port}/tcp"
    next_step = f"{step}, then {target.again}"
    return Broken(f"{where}: {error.strerror or error}", cause=cause, next=next_step, data=data)


async def check_tcp(
    target: Target, addresses: Sequence[str], port: int, patience: Patience
) -> Found[dict[str, socket.socket]]:
    """Check that the port is open on each address.

    The value: address -> connected socket, which the caller closes.

    Raises Broken, Skip.
    """

    async def one(address: str) -> tuple[socket.socket, float]:
        began = time.perf_counter()
        return await dial(address, port, target, patience), (time.perf_counter() - began) * 1000

    outcomes = dict(
        zip(addresses, await asyncio.gather(*map(one, addresses), return_exceptions=True), strict=True)
    )
    opened = {
        address: outcome for address, outcome in outcomes.items() if not isinstance(outcome, BaseException)
    }
    faults = [
        outcome
        for outcome in outcomes.values()
        if isinstance(outcome, BaseException) and not isinstance(outcome, NoRoute)
    ]
    if faults or not opened:
        for connection, _ in opened.values():
            connection.close()
        if faults:
            raise faults[0]
        raise Skip(str(next(iter(outcomes.values()))))
    lines = [f"{address} in {duration(ms)}" for address, (_, ms) in opened.items()]
    unproved = [address for address in addresses if address not in opened]
    return Found(
        {address: connection for address, (connection, _) in opened.items()},
        f"port {port} open on {', '.join(lines)}",
        f"{', '.join(unproved)} not tried: this controller has no route in that address family"
        if unproved
        else "",
        {"connect_ms": {address: round(ms, 2) for address, (_, ms) in opened.items()}},
    )
