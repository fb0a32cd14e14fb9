"""STUN: the relay reports to a client, truthfully, the address that it sees.

Clients choose their home by it.
"""

from __future__ import annotations

import asyncio
import os
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from probe.net import NoRoute, Patience, family
from probe.proof import Broken, Found, Skip, duration
from probe.target import Part, Target
from relay.core.stun import TXID_LEN, pack_request, parse_response
from relay.core.wire import ProtocolError

_RESEND_S = 0.4
_MAX_JUNK = 32
_DOCKER = ip_network("172.16.0.0/12")
_WORDS = {
    "not_stun": "the program on that port does not speak STUN",
    "wrong_txid": "the answer belongs to another request: its transaction id is not ours",
    "stun_error": "the server answered with an error",
    "no_address": "the answer holds no mapped address",
}
Address = IPv4Address | IPv6Address


class _Asker(asyncio.DatagramProtocol):
    """Collects the datagrams that come back on one connected UDP socket."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[tuple[float, bytes] | OSError] = asyncio.Queue(_MAX_JUNK)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._put((time.perf_counter(), data))

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, OSError):
            self._put(exc)

    def _put(self, item: tuple[float, bytes] | OSError) -> None:
        if not self.inbox.full():
            self.inbox.put_nowait(item)


async def measure(
    address: str, port: int, patience_s: float
) -> tuple[float, tuple[Address, int], tuple[Address, int]]:
    """Return the round trip in ms, the address and port that the server saw, and our own.

    Asks repeatedly within `patience_s`. Raises TimeoutError, ProtocolError (the last wrong answer's
    reason), ConnectionRefusedError, OSError, NoRoute.
    """
    loop = asyncio.get_running_loop()
    try:
        transport, asker = await loop.create_datagram_endpoint(
            _Asker, remote_addr=(address, port), family=family(address)
        )
    except OSError:
        raise NoRoute(f"this controller has no route to {address}") from None
    host, own_port = transport.get_extra_info("sockname")[:2]
    sent: dict[bytes, float] = {}
    fault: ProtocolError | None = None
    try:
        async with asyncio.timeout(patience_s):
            while True:
                txid = os.urandom(TXID_LEN)
                sent[txid] = time.perf_counter()
                transport.sendto(pack_request(txid))
                try:
                    async with asyncio.timeout(_RESEND_S):
                        while True:
                            item = await asker.inbox.get()
                            if isinstance(item, OSError):
                                raise item
                            at, data = item
                            asked = data[8:20] if data[8:20] in sent else txid
                            try:
                                return (
                                    (at - sent[asked]) * 1000,
                                    parse_response(data, asked),
                                    (ip_address(host.split("%")[0]), own_port),
                                )
                            except ProtocolError as error:
                                fault = error
                except TimeoutError:
                    continue
    except TimeoutError:
        if fault is not None:
            raise fault from None
        raise
    finally:
        transport.abort()


async def check_stun(target: Target, address: str, patience: Patience) -> Found[float]:
    """Measure the round trip in milliseconds, and check the address that the relay sees.

    Raises Broken, Skip.
    """
    port = target.stun_port
    assert port is not None  # noqa: S101 - the caller skips the rung
    where = f"{address} port {port}/udp"
    try:
        ms, mapped, own = await measure(address, port, patience.stun_s)
    except NoRoute as error:
        raise Skip(str(error)) from None
    except ProtocolError as error:
        raise Broken(
            f"{where} gave a wrong answer",
            cause=_WORDS[error.reason],
            next=target.redeploy(
                Part.RELAY, f"see what listens on {port}/udp", unchanged=target.restart()
            ),
        ) from None
    except TimeoutError:
        raise Broken(
            f"{where} did not answer in {patience.stun_s:g} s",
            cause=(
                f"{port}/udp is closed in the provider's security group or the host's firewall, "
                "or STUN listens on another port or on loopback only"
            ),
            inconclusive=True,  # our relay answers no STUN while its front is broken
            next=(
                f"open {port}/udp in the provider's console, then "
                f"{target.redeploy(Part.FIREWALL, 'open it on the host')}"
            ),
            data={"unanswered": {"proto": "udp", "address": address, "port": port}},
        ) from None
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        raise Broken(
            f"{where}: {'refused' if refused else error.strerror or error}",
            cause="the host is up, but nothing listens on that port: STUN is off, or on another port"
            if refused
            else "the datagram could not be sent",
            next=target.redeploy(Part.RELAY, f"start STUN on {port}/udp", unchanged=target.restart()),
        ) from None
    seen = f"{mapped[0]} port {mapped[1]}"
    if why := _untrue(mapped, own, ip_address(address)):
        raise Broken(
            f"{where} says that we are {seen}",
            cause=why,
            next=target.redeploy(
                Part.RELAY,
                "let the relay listen on the host's own network",
                unchanged="end the translation of addresses on the way (on the host: nft list ruleset), "
                f"then {target.again}",
            ),
        )
    return Found(
        ms, f"{duration(ms)}, sees us as {seen}", data={"rtt_ms": round(ms, 2), "mapped": str(mapped[0])}
    )


def _untrue(mapped: tuple[Address, int], own: tuple[Address, int], relay: Address) -> str:
    """Return why a mapped address cannot be ours, or "".

    `own` is our socket's; a NAT on the way is no fault.
    """
    address, local = mapped[0], own[0]
    if address == local:
        return ""
    if local.is_loopback:
        return f"we asked from {local}, with no NAT between: the answer is wrong"
    bridge = (
        "the relay sees a proxy or a container's bridge instead of its clients "
        "(Docker's userland proxy does that)"
    )
    if address == relay or address.is_loopback or (address in _DOCKER and local not in _DOCKER):
        return bridge
    if relay.is_global and not address.is_global:
        return bridge
    if local.is_global and address.version == local.version:
        return f"this controller's own address is {local}: something between rewrites it"
    return ""
