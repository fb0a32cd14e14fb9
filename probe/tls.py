"""TLS as clients check it: name, chain, dates; or one pinned certificate.

When it fails, a second look finds out why.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from probe.certificate import LOW_SHARE, Chain, read_chain
from probe.clock import ahead_of, apart, wrong_here
from probe.net import BoundedStream, Flooded, NoRoute, Patience, within
from probe.proof import Broken, Found
from probe.target import Part, Target
from probe.tcp import dial
from probe.web import BadAnswer, ask, authority


def _context_of(target: Target) -> ssl.SSLContext:
    """Return a TLS context like a client's: TLS 1.2 and up, no ALPN.

    With a pin it verifies nothing. Raises Broken when the CA bundle cannot be read.
    """
    if target.pin:
        return _context(None, 0, True)
    try:
        return _context(target.ca, target.ca.stat().st_mtime_ns if target.ca else 0, False)
    except OSError as error:
        raise Broken(
            f"{target.ca} cannot be read: {error.strerror or error}",
            cause="the CA bundle to verify with is not there, or is no PEM file",
            next="correct certificate.ca in the site file",
        ) from None


@functools.cache
def _context(ca: Path | None, changed: int, trusting: bool) -> ssl.SSLContext:
    """Make a context once: loading the system's roots takes 20 ms, and each connection of a fleet
    needs it.

    `changed`: the bundle's time.
    """
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    if trusting:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        return tls
    tls.load_default_certs()
    if ca is not None:
        tls.load_verify_locations(ca)
    return tls


async def open_tls(
    target: Target, connection: socket.socket, address: str, patience: Patience
) -> tuple[BoundedStream, Chain]:
    """Open TLS to the target; return the stream and the chain that came with it.

    The certificate is verified on each connection, by its chain or by the pin. There is no other
    way to a TLS stream that anything is sent on, so that no caller can forget it: a man in the
    middle may let one connection pass and answer the next one by himself.

    Owns `connection`. Raises Broken.
    """
    try:
        tls = _context_of(target)
    except Broken:
        connection.close()
        raise
    late = Broken(
        f"no TLS handshake with {address} port {target.https_port} in {patience.tls_s:g} s",
        cause="something accepts the connection and then stalls: it does not speak TLS, or its backend hangs",
        next=_front(target, address),
    )
    try:
        async with within(patience.tls_s, late):
            stream = await BoundedStream.over(connection, tls, target.domain, patience.tls_s + 1)
    except OSError as error:  # ssl.SSLError is one
        raise await _diagnose(target, address, error, patience) from None
    try:
        chain = _presented(stream)
        if target.pin:
            _check_pin(target, chain, datetime.now(UTC))
    except ValueError as error:
        stream.close()
        raise Broken(
            f"the certificate cannot be read: {error}", cause="it is malformed", next=late.next
        ) from None
    except BaseException:
        stream.close()
        raise
    return stream, chain


async def check_tls(
    target: Target, connection: socket.socket, address: str, patience: Patience
) -> Found[tuple[BoundedStream, Chain]]:
    """Open TLS; return the open stream and the chain that came with it.

    Owns `connection`. Raises Broken.
    """
    stream, chain = await open_tls(target, connection, address, patience)
    leaf, now = chain.leaf, datetime.now(UTC)
    version = stream.tls.version() if stream.tls else None
    trust = "pinned" if target.pin else f"by {leaf.issuer}"
    warning = "" if leaf.share_left(now) >= LOW_SHARE else f"only {leaf.left(now)}: the renewal is overdue"
    data = {
        "version": version,
        "names": list(leaf.names),
        "issuer": leaf.issuer,
        "not_after": leaf.not_after.isoformat(),
        "days_left": round((leaf.not_after - now).total_seconds() / 86400, 1),
        "share_left": round(leaf.share_left(now), 3),
        "sha256": leaf.sha256,
        "certificates": chain.count,
        "fast_start": chain.derp_key is not None,
    }
    return Found(
        (stream, chain), f"{version}, {trust}, {leaf.left(now)}, sha256 {leaf.sha256[:16]}…", warning, data
    )


def _presented(stream: BoundedStream) -> Chain:
    """Return the chain as the server sent it. Raises ValueError."""
    assert stream.tls is not None  # noqa: S101 - the stream was opened with TLS
    # Public since Python 3.13. Before, only the inner object has it, and it returns objects whose
    # DER is `public_bytes(2)`.
    public = hasattr(stream.tls, "get_unverified_chain")
    # `_sslobj` is not among its attributes for the type checker.
    source: Any = stream.tls if public else stream.tls._sslobj  # type: ignore[attr-defined]
    entries = source.get_unverified_chain()
    chain = read_chain([entry if isinstance(entry, bytes) else entry.public_bytes(2) for entry in entries])
    # Clients make the fast start in TLS 1.3 only, where the certificates came encrypted.
    return chain if stream.tls.version() == "TLSv1.3" else replace(chain, derp_key=None)


def _check_pin(target: Target, chain: Chain, now: datetime) -> None:
    """Check by the rules of `sha256-raw:` (net/tlsdial/tlsdial.go:SetConfigExpectedCertHash).

    Raises Broken.
    """
    leaf = chain.leaf
    if leaf.sha256 != target.pin:
        raise Broken(
            f"the certificate is sha256 {leaf.sha256}",
            cause=f"it is not the pinned one, {target.pin}: it was made again, or another server answers",
            next=target.redeploy(Part.CERTIFICATE, "put the new fingerprint into the map's certname"),
        )
    if chain.count != 1:
        raise Broken(
            f"{chain.count} certificates presented",
            cause="a pinned relay has to present exactly one certificate, no chain",
            next=target.redeploy(Part.CERTIFICATE, "serve the leaf alone"),
        )
    if not leaf.not_before <= now <= leaf.not_after:
        raise Broken(
            f"valid from {leaf.not_before:%Y-%m-%d} to {leaf.not_after:%Y-%m-%d}",
            cause="the pinned certificate has expired or is not yet valid",
            next=target.redeploy(Part.CERTIFICATE, "make a new one"),
        )
    if not target.is_address and target.domain not in leaf.names:
        raise Broken(
            f"the certificate is for {', '.join(leaf.names) or 'no name'}",
            cause=f"it does not name {target.domain}",
            next=target.redeploy(Part.CERTIFICATE, "make one for that name"),
        )


async def _diagnose(target: Target, address: str, error: OSError, patience: Patience) -> Broken:
    """Find out why a handshake failed, by a second one if need be."""
    if isinstance(error, ssl.SSLCertVerificationError):
        chain = await _look(target, address, patience, target.domain)
        if chain is not None and error.verify_code in {_NOT_YET_VALID, _EXPIRED}:
            ahead = ahead_of(await _their_date(target, address, patience), now := datetime.now(UTC))
            if wrong_here(chain.leaf, ahead, now):
                return _wrong_clock(target, error, ahead)
        return _untrusted(target, address, error, chain)
    where = f"{address} port {target.https_port}"
    if isinstance(error, ssl.SSLError):
        return await _not_tls(target, address, error, patience)
    # Cut off within the handshake. If a hello without a name gets through, a filter on the way
    # blocks the name.
    if not target.is_address and await _look(target, address, patience, "") is not None:
        return Broken(
            f"{where} cut the connection after a hello that names {target.domain}; a hello "
            "without a name gets a certificate",
            cause=(
                "a filter on the way blocks the name: in mainland China, a domain "
                "without ICP filing on this port"
            ),
            next=(
                "file the domain, or use another https port with ports.https, or an address "
                f"with certificate.source: self-signed; then {target.again}"
            ),
        )
    return Broken(
        f"{where} cut the connection within the TLS handshake",
        cause=(
            "a filter on the way, a listener that speaks something else, or a "
            "proxy without a server for this port"
        ),
        next=_front(target, address),
    )


def _wrong_clock(target: Target, error: ssl.SSLCertVerificationError, ahead: timedelta | None) -> Broken:
    return Broken(
        f"{error.verify_message} by this controller's clock; {apart(ahead)}",
        cause="this controller's clock is wrong: by the relay's clock the certificate is valid",
        next=f"timedatectl set-ntp true on this controller, then {target.again}",
    )


async def _their_date(target: Target, address: str, patience: Patience) -> str | None:
    """Return the Date of the relay's answer, trusted or not; it is sent nothing but its name."""
    host = authority(target.domain, target.https_port, 443)
    with contextlib.suppress(OSError, TimeoutError, Broken, NoRoute, BadAnswer):
        async with _unverified(target, address, patience, target.domain, patience.http_s) as stream:
            return (await ask(stream, host, "/derp/probe")).headers.get("date")
    return None


async def _look(target: Target, address: str, patience: Patience, server_name: str) -> Chain | None:
    """Return the chain that is presented to a hello with that name, trusted or not; None when there
    is none."""
    with contextlib.suppress(OSError, TimeoutError, Broken, NoRoute, ValueError):
        async with _unverified(target, address, patience, server_name, patience.tls_s) as stream:
            return _presented(stream)
    return None


@contextlib.asynccontextmanager
async def _unverified(
    target: Target, address: str, patience: Patience, server_name: str, limit_s: float
) -> AsyncIterator[BoundedStream]:
    """Open TLS with that name, and trust any certificate. `limit_s` is for all after TCP.

    Raises Broken, without words, when that is too short; OSError, NoRoute.
    """
    connection = await dial(address, target.https_port, target, patience)
    async with within(limit_s, Broken("", cause="", next="")):
        tls = _context(None, 0, True)
        stream = await BoundedStream.over(connection, tls, server_name, patience.tls_s + 1)
        with contextlib.closing(stream):
            yield stream


# X509_V_ERR_*: the results of OpenSSL's verification whose cause can be named here.
_NOT_YET_VALID, _EXPIRED, _SELF_SIGNED, _UNKNOWN_ROOT, _NO_ISSUER, _UNVERIFIABLE, _NAMES, _ADDRESSES = (
    9,
    10,
    18,
    19,
    20,
    21,
    62,
    64,
)


def _untrusted(
    target: Target, address: str, error: ssl.SSLCertVerificationError, chain: Chain | None
) -> Broken:
    """Return the reason of a failed verification, from the chain that was presented."""
    detail, cause, step = error.verify_message, "the certificate is not trusted", _s_client(target, address)
    if chain is None:
        return Broken(detail, cause=cause, next=step)
    code, leaf, now = error.verify_code, chain.leaf, datetime.now(UTC)
    names = ", ".join(leaf.names) or "no name at all"
    renew = target.redeploy(Part.CERTIFICATE, "renew it")
    if code == _EXPIRED and leaf.not_after < now:
        detail = f"the certificate expired on {leaf.not_after:%Y-%m-%d %H:%M} UTC"
        cause, step = "it was not renewed, or was renewed on disk and not reloaded", renew
    elif code == _EXPIRED:
        detail, cause, step = (
            "an intermediate certificate has expired",
            "the chain was not renewed with the leaf",
            renew,
        )
    elif code == _NOT_YET_VALID:
        detail = f"the certificate is valid only from {leaf.not_before:%Y-%m-%d %H:%M} UTC"
        cause, step = "the clock of this controller, or of the CA, is wrong", "timedatectl"
    elif code in {_NAMES, _ADDRESSES}:
        detail = f"the certificate is for {names}, not for {target.domain}"
        cause = "another site's certificate is served for this name, or it was ordered for another name"
        step = _served_by_others(target, f"order a certificate for {target.domain}")
    elif code == _SELF_SIGNED:
        detail, cause = (
            f"the certificate is signed by itself (sha256 {leaf.sha256})",
            "no client trusts it without a pin",
        )
        step = _served_by_others(
            target, f"set certname to sha256-raw:{leaf.sha256} in the map, or get one from a CA"
        )
    elif code in {_NO_ISSUER, _UNVERIFIABLE} and chain.count == 1:
        detail = f"only the leaf was sent; its issuer is {leaf.issuer}, no root that is trusted here"
        cause = (
            "the intermediate certificate is missing: browsers fetch it, Tailscale clients "
            "do not; or the CA is a private one"
        )
        step = (
            "put the intermediate behind the leaf in the file that certificate.fullchain names, or, if an "
            f"ACME server gave it, invoke renew --host {target.name} --force; then {target.deploy_all}"
            if target.managed
            else f"serve fullchain.pem (for a private CA: name its bundle), then {target.again}"
        )
    elif code in {_UNKNOWN_ROOT, _NO_ISSUER, _UNVERIFIABLE}:
        detail = f"the chain of {names} ends at an issuer that is not trusted here (leaf by {leaf.issuer})"
        cause = "a private or staging CA, or a program on the way that shows its own certificate"
        step = f"name the CA's bundle in certificate.ca, then {target.again}" if target.of_site else step
    return Broken(detail, cause=cause, next=step)


async def _not_tls(target: Target, address: str, error: ssl.SSLError, patience: Patience) -> Broken:
    """Find out the protocol of a port on which OpenSSL gave up."""
    where = f"{address} port {target.https_port}"
    reason = (error.reason or "").upper()
    if "ALERT" in reason or "UNRECOGNIZED_NAME" in reason:
        refused_name = "UNRECOGNIZED_NAME" in reason or "HANDSHAKE_FAILURE" in reason
        return Broken(
            f"{where} refused the handshake: {reason.lower().replace('_', ' ')}",
            cause=f"it has no certificate for {target.domain}"
            if refused_name
            else "it offers no TLS version or cipher that clients use",
            next=_front(target, address),
        )
    answer = await _first_bytes(target, address, patience)
    if answer.startswith(b"HTTP/"):
        return Broken(
            f"{where} speaks plain HTTP",
            cause=(
                "TLS is off there: a derper on a port other than 443 needs "
                "-certmode=manual, an nginx `listen` needs `ssl`"
            ),
            next=target.redeploy(Part.FRONT, "turn TLS on", unchanged=target.restart()),
        )
    seen = (
        f"it says {answer[:24]!r}" if answer else (error.reason or "protocol error").lower().replace("_", " ")
    )
    return Broken(
        f"{where} does not speak TLS: {seen}",
        cause="another program listens on that port",
        next=_front(target, address),
    )


async def _first_bytes(target: Target, address: str, patience: Patience) -> bytes:
    """Return the first bytes from the port: its answer to a plain HTTP request, or its own
    greeting."""
    with contextlib.suppress(OSError, TimeoutError, Broken, NoRoute, Flooded):
        async with within(patience.http_s, Broken("", cause="", next="")):
            connection = await dial(address, target.https_port, target, patience)
            with contextlib.closing(await BoundedStream.over(connection)) as stream:
                await stream.send(
                    b"GET /derp/probe HTTP/1.1\r\nHost: "
                    + target.domain.encode()
                    + b"\r\nConnection: close\r\n\r\n"
                )
                return await stream.read()
    return b""


def _served_by_others(target: Target, otherwise: str) -> str:
    """Return the step where the certificate served is perhaps not the one on the host."""
    another = target.redeploy(Part.CERTIFICATE, otherwise)
    return f"{target.deploy_all}; if that changes nothing: {another}" if target.managed else another


def _front(target: Target, address: str) -> str:
    look = _s_client(target, address)
    shows = f"{look} shows what answers there; then {target.again}"
    return target.redeploy(Part.FRONT, look, unchanged=shows)


def _s_client(target: Target, address: str) -> str:
    at = f"[{address}]" if ":" in address else address
    name = "-noservername" if target.is_address else f"-servername {target.domain}"
    return f"openssl s_client -connect {at}:{target.https_port} {name} -showcerts"
