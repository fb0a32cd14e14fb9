"""`python -m relay.selftest https://derp.example.org`: two clients log in and send to each other.

For operators of a relay alone, without the toolkit. Prints one line per step and exits 0 if all of
them worked, 1 at the first that did not, 2 if the command line is wrong. Needs only the relay's
address; where clients are admitted by list, also `-mesh-key` or an allowed `-key`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import statistics
import sys
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from relay.client import NotUpgraded
from relay.connection import Connection
from relay.core import stun
from relay.core.handshake import ClientInfo, make_private_key
from relay.core.wire import ProtocolError
from relay.keys.node_key import KeyFileError, parse_key_file, read_mesh_key
from relay.keys.self_signed import pin_of

T = TypeVar("T")


class SelfTestFailed(Exception):
    """A step that did not work, in one line."""


@dataclass(frozen=True)
class RelayUnderTest:
    """The relay's address, and the clients that come."""

    host: str
    port: int
    address: str  # to dial
    tls: ssl.SSLContext | None
    keys: tuple[bytes, bytes]  # the two clients' private keys
    info: ClientInfo
    fast_start: bool
    limit_s: float


def main(argv: Sequence[str] | None = None) -> None:
    options = _parse_arguments(argv)
    try:
        asyncio.run(_run(options))
    except SelfTestFailed as e:
        print(f"FAILED  {e}", file=sys.stderr)
        raise SystemExit(1) from None


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m relay.selftest",
        description="Log in to a DERP relay twice and send packets both ways.",
    )
    parser.add_argument("url", help="https://host[:port], or http:// for a relay without TLS")
    parser.add_argument("-address", default="", help="dial this address instead of the host's")
    parser.add_argument(
        "-pin", default="", help="sha256-raw:<hex> of the certificate; no authority is asked then"
    )
    parser.add_argument("-insecure", action="store_true", help="do not check the certificate")
    parser.add_argument(
        "-fast-start",
        action="store_true",
        help="use the key in the relay's certificates, as Tailscale's clients do",
    )
    parser.add_argument(
        "-key", default="", help="key file of an admitted client, in derper's format; it sends to itself"
    )
    parser.add_argument("-mesh-key", default="", help="file with the mesh key: no admission is asked")
    parser.add_argument(
        "-stun-port", type=int, default=3478, help="0 = do not ask for STUN (default %(default)s)"
    )
    parser.add_argument("-count", type=int, default=10, help="packets each way (default %(default)s)")
    parser.add_argument(
        "-size", type=int, default=1200, help="bytes in each, 8 to 65536 (default %(default)s)"
    )
    parser.add_argument(
        "-timeout", type=float, default=5.0, help="seconds for each step (default %(default)s)"
    )
    options = parser.parse_args(argv)
    url = urlsplit(options.url)
    if url.scheme not in ("http", "https") or not url.hostname:
        parser.error(f"{options.url} is no http:// or https:// URL")
    if not 8 <= options.size <= 65536 or options.count < 1:
        parser.error("-size is 8 to 65536, -count at least 1")
    return options


async def _run(options: argparse.Namespace) -> None:
    target = _target(options)
    if target.tls is not None:
        await _step("tls", _look_at_tls(target, options.pin), target.limit_s)
    async with await _step("login", _login(target, target.keys[0]), target.limit_s) as left:
        if target.keys[0] == target.keys[1]:  # one admitted key: it sends to itself
            await _talk(target, left, left, options)
        else:
            async with await _step("login", _login(target, target.keys[1]), target.limit_s) as right:
                await _talk(target, left, right, options)
    if options.stun_port:
        await _step("stun", _ask_stun(target.address, options.stun_port), target.limit_s)


def _target(options: argparse.Namespace) -> RelayUnderTest:
    url = urlsplit(options.url)
    host = url.hostname or ""
    try:
        key = parse_key_file(Path(options.key).read_bytes()).private if options.key else b""
        mesh_key = read_mesh_key(options.mesh_key) if options.mesh_key else None
    except (OSError, ValueError, KeyFileError) as e:
        raise SelfTestFailed(f"key: {e}") from None
    tls = ssl.create_default_context() if url.scheme == "https" else None
    if tls and (options.insecure or options.pin):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    keys = (key, key) if key else (make_private_key(), make_private_key())
    info = ClientInfo(is_prober=True, mesh_key=mesh_key)
    return RelayUnderTest(
        host,
        url.port or (443 if tls else 80),
        options.address or host,
        tls,
        keys,
        info,
        options.fast_start,
        options.timeout,
    )


def _say(step: str, text: str) -> None:
    print(f"ok  {step:8} {text}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


async def _step(name: str, work: Awaitable[T], limit_s: float) -> T:
    try:
        return await asyncio.wait_for(work, limit_s)
    except asyncio.TimeoutError:
        raise SelfTestFailed(f"{name}: no answer within {limit_s:g} s") from None
    except NotUpgraded as e:
        raise SelfTestFailed(f"{name}: the upgrade was refused: {e}") from None
    except EOFError:
        raise SelfTestFailed(
            f"{name}: the relay hung up. If it admits clients by list, use -key or -mesh-key"
        ) from None
    except (OSError, ProtocolError) as e:
        raise SelfTestFailed(f"{name}: {e or type(e).__name__}") from None


async def _look_at_tls(target: RelayUnderTest, pin: str) -> None:
    """Print the TLS version, the cipher and the pin of the certificate.

    With a pin, trust from here on the certificate that has it, and no other.
    """
    tls = target.tls
    assert tls is not None  # noqa: S101  for the type checker
    _, writer = await asyncio.open_connection(
        target.address, target.port, ssl=tls, server_hostname=target.host
    )
    try:
        inner = writer.get_extra_info("ssl_object")
        leaf = ssl.DER_cert_to_PEM_cert(inner.getpeercert(binary_form=True))
        version, cipher = inner.version(), inner.cipher()[0]
    finally:
        writer.transport.abort()
    if pin:
        if pin_of(leaf) != pin:
            raise SelfTestFailed(f"tls: the certificate's pin is {pin_of(leaf)}")
        tls.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        tls.load_verify_locations(cadata=leaf)
        tls.verify_mode = ssl.CERT_REQUIRED
    _say("tls", f"{version} {cipher}, {pin_of(leaf)}")


async def _login(target: RelayUnderTest, key: bytes) -> Connection:
    began = time.perf_counter()
    connection = await Connection.open(
        target.address,
        target.port,
        key,
        target.info,
        tls=target.tls,
        server_name=target.host,
        fast_start=target.fast_start,
    )
    _say(
        "login",
        f"{_ms(time.perf_counter() - began)}, server key {(connection.client.server_key or b'').hex()}",
    )
    return connection


async def _talk(
    target: RelayUnderTest, left: Connection, right: Connection, options: argparse.Namespace
) -> None:
    await _step("ping", _ping(left), target.limit_s)
    await _step("packets", _exchange(left, right, options.count, options.size), target.limit_s)


async def _ping(connection: Connection) -> None:
    began = time.perf_counter()
    await connection.ping(os.urandom(8))
    _say("ping", _ms(time.perf_counter() - began))


async def _exchange(left: Connection, right: Connection, count: int, size: int) -> None:
    """Send packets to and fro, one at a time. Half of a round trip is the time of one packet."""
    times = []
    for number in range(count):
        packet = number.to_bytes(8, "big") + os.urandom(size - 8)
        began = time.perf_counter()
        for sender, receiver in ((left, right), (right, left)):
            await sender.send(receiver.client.public_key, packet)
            received = await receiver.receive_packet()
            if (received.source, received.packet) != (sender.client.public_key, packet):
                raise SelfTestFailed("packets: other bytes arrived than were sent")
        times.append((time.perf_counter() - began) / 2)
    _say(
        "packets",
        f"{count} each way of {size} bytes: min {_ms(min(times))}, "
        f"median {_ms(statistics.median(times))}, max {_ms(max(times))}",
    )


async def _ask_stun(address: str, port: int) -> None:
    """Send a binding request, and again every second: UDP may lose it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    class Answer(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            if not answer.done():
                answer.set_result(data)

    transport, _ = await loop.create_datagram_endpoint(Answer, remote_addr=(address, port))
    txid = os.urandom(stun.TXID_LEN)
    began = time.perf_counter()
    try:
        while not answer.done():
            transport.sendto(stun.pack_request(txid))
            await asyncio.wait((answer,), timeout=1)
    finally:
        transport.close()
    mine, my_port = stun.parse_response(answer.result(), txid)
    _say("stun", f"{_ms(time.perf_counter() - began)}, we are {mine} port {my_port}")


if __name__ == "__main__":
    main()
