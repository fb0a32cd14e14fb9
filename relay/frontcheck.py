"""A check that the relay's own front leads clients to this relay. While it fails, STUN is silent.

Clients keep a relay as their home whose STUN answers although its TLS does not. So each check does
what a client does, on a fresh connection: TLS under the relay's name, the upgrade, and the key that
the relay names, which has to be ours. The certificate must be for that name and in force. Clients
decide for themselves whether they trust its issuer (an authority, their own one, a fingerprint in
the map), so that is not checked, and nor is anything else that a renewal could make stale. The
connection ends without a log-in: it counts as `closed_in_client_info` among the refusals.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relay import client as derp
from relay.core.handshake import make_private_key
from relay.core.wire import ProtocolError
from relay.keys.certificate import parse_certificate
from relay.log import Log

WELL_S: Final = 10.0  # between checks
# A front that works again is known before a prover, or a client, gives up asking.
ILL_S: Final = 1.0  # also between attempts of one check
LIMIT_S: Final = 5.0
PATIENCE: Final = 2  # failures in a row before a front that worked counts as broken
LOG: Final = Log("front")


@dataclass(frozen=True)
class FrontAddress:
    """The front's address, the name that it serves, and the key of the relay behind it."""

    address: str
    port: int
    hostname: str
    key: bytes


async def watch_front(front: FrontAddress, report: Callable[[bool], None]) -> None:
    """Check until cancelled, and call `report` whenever the result changes.

    Until the first check has passed, the front does not work.
    """
    well, failures = False, PATIENCE - 1
    while True:
        problem = await check_front(front)
        failures = failures + 1 if problem else 0
        if well != (failures < PATIENCE) or failures == PATIENCE:
            well = failures < PATIENCE
            report(well)
            if well:
                LOG.info("the relay's own front works, STUN answers", front=f"{front.address}:{front.port}")
            else:
                LOG.error(
                    "the relay's own front does not work, STUN is silent",
                    front=f"{front.address}:{front.port}",
                    problem=problem,
                )
        await asyncio.sleep(ILL_S if failures else WELL_S)


async def check_front(front: FrontAddress) -> str:
    """Return the reason that keeps clients from reaching this relay through its front, or "".

    Another attempt begins while one gets no answer: a front that is being replaced may leave a
    connection hanging, and the next one is answered. The first answer counts.
    """
    attempts: set[asyncio.Task[str]] = set()
    try:
        while True:
            attempts.add(asyncio.ensure_future(_attempt(front)))
            done, _ = await asyncio.wait(attempts, timeout=ILL_S, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done.pop().result()
    finally:
        for attempt in attempts:
            attempt.cancel()
        await asyncio.gather(*attempts, return_exceptions=True)


async def _attempt(front: FrontAddress) -> str:
    try:
        return await asyncio.wait_for(_look(front), LIMIT_S)
    except asyncio.TimeoutError:
        return f"no answer within {LIMIT_S:g} s"
    except (OSError, ProtocolError) as error:
        return str(error) or type(error).__name__


async def _look(front: FrontAddress) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        front.address, front.port, ssl=context, server_hostname=front.hostname
    )
    try:
        leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if problem := _fault_of(leaf, front.hostname):
            return problem
        client = derp.Client(make_private_key())
        client.start(front.hostname if front.port == 443 else f"{front.hostname}:{front.port}")
        writer.write(client.outgoing())
        while client.server_key is None:
            client.receive(await reader.read(4096))
        return "" if client.server_key == front.key else "another relay is behind it"
    finally:
        writer.transport.abort()


def _fault_of(leaf: bytes, hostname: str) -> str:
    """Return the reason for which clients would refuse a certificate of any issuer, or ""."""
    try:
        certificate = parse_certificate(leaf)
    except ValueError as error:
        return str(error)
    if not certificate.is_for(hostname):
        return f"its certificate is for {', '.join(certificate.names) or 'no name'}, not for {hostname}"
    if not certificate.not_before <= time.time() <= certificate.not_after:
        return "its certificate is not in force: see its dates, and this host's clock"
    return ""
