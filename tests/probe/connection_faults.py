"""The catalogue of faults, first half: names, TCP, STUN and TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from probe.target import Target
from tests.probe.authority import DAY
from tests.probe.faulty_servers import backlog_full, filtering, saying, stun_saying, trickling
from tests.probe.seeding import Fault, Stage, front, pin_of
from tests.probe.servers import DOMAIN, LOOPBACK, free_port


def resolving(*addresses: str) -> Callable[[str], object]:
    async def resolve(_: str) -> list[str]:
        return list(addresses)

    return resolve


async def no_such_name(_: str) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def silent_resolver(_: str) -> list[str]:
    await asyncio.sleep(60)
    return []


def wrong_txid(request: bytes, sender: tuple[str, int]) -> bytes:
    return stun_saying(LOOPBACK)(request[:8] + bytes(12) + request[20:], sender)


def stun_error(request: bytes, _: tuple[str, int]) -> bytes:
    return b"\x01\x11\x00\x00" + request[4:20]


def no_address(request: bytes, _: tuple[str, int]) -> bytes:
    return b"\x01\x01\x00\x00" + request[4:20]


async def full_backlog(stage: Stage) -> Target:
    return stage.healthy(https_port=stage.open.enter_context(backlog_full()))


async def filtered_name(stage: Stage) -> Target:
    return await stage.instead(filtering(DOMAIN, stage.fronted[0]))


def two_families(stage: Stage) -> Target:
    return stage.healthy(ipv6="::1", resolve=resolving(LOOPBACK, "::1"))


def pinned(stage: Stage, pin: str) -> Target:
    return stage.healthy(pin=pin)


CONNECTION_FAULTS: dict[str, Fault] = {
    # name
    "the name does not exist": (
        lambda s: s.healthy(resolve=no_such_name), "name", "does not exist", "set A 127.0.0.1 for relay.test",
    ),
    "the resolver is silent": (
        lambda s: s.healthy(resolve=silent_resolver), "name", "resolver .* does not answer", "dig relay.test",
    ),
    "A points elsewhere": (
        lambda s: s.healthy(resolve=resolving("198.51.100.7")),
        "name", "A record points elsewhere", "set A of",
    ),
    "A points elsewhere too": (
        lambda s: s.healthy(resolve=resolving(LOOPBACK, "198.51.100.7")),
        "name", "A record also points", "set A of",
    ),
    "behind a CDN": (
        lambda s: s.healthy(resolve=resolving("104.16.1.1", "2606:4700::1")),
        "name", "Cloudflare", "DNS only",
    ),
    "a proxy's fake address": (
        lambda s: s.healthy(resolve=resolving("198.18.0.5")), "name", "fake-ip", "exempt the name",
    ),
    "a blocked name": (lambda s: s.healthy(ipv4="198.51.100.7"), "name", "blocked", "another resolver"),
    # TCP
    "nothing listens on the https port": (
        lambda s: s.healthy(https_port=free_port()), "tcp", "nothing listens", "role:nginx",
    ),
    "a packet filter before the https port": (full_backlog, "tcp", "packet filter", "provider's console"),
    "nothing listens on the http port": (
        lambda s: s.healthy(http_port=free_port()), "tcp80", "nothing listens", "role:nginx",
    ),
    "no listener on IPv6": (two_families, "tcp", "nothing listens", "role:nginx"),
    # STUN
    "STUN on another port": (
        lambda s: s.healthy(stun_port=free_port()), "stun4", "nothing listens", "role:relay",
    ),
    "STUN closed": (
        lambda s: s.stun(lambda *_: None),
        "stun4", "closed in the provider's security group", "role:firewall",
    ),
    "STUN sees a container's bridge": (
        lambda s: s.stun(stun_saying("172.17.0.1")), "stun4", "answer is wrong", "role:relay",
    ),
    "STUN answers another's request": (lambda s: s.stun(wrong_txid), "stun4", "transaction id", "role:relay"),
    "STUN answers an error": (lambda s: s.stun(stun_error), "stun4", "error", "role:relay"),
    "STUN without an address": (lambda s: s.stun(no_address), "stun4", "no mapped address", "role:relay"),
    "garbage on the STUN port": (
        lambda s: s.stun(lambda *_: b"garbage"), "stun4", "does not speak STUN", "role:relay",
    ),
    # TLS
    "wrong name in the certificate": (
        lambda s: s.front(s.issued("other.test")),
        "tls", "another site's certificate", "^invoke deploy --host hk1; if",
    ),
    "expired": (
        lambda s: s.front(s.issued(start=-90 * DAY, end=-DAY)),
        "tls", "not renewed", "invoke renew --host hk1",
    ),
    "not yet valid": (lambda s: s.front(s.issued(start=DAY)), "tls", "clock", "timedatectl"),
    "missing intermediate": (
        lambda s: s.front(s.issued(full=False)),
        "tls",
        "intermediate certificate is missing",
        "certificate.fullchain names, .*then invoke deploy --host hk1$",
    ),
    "an expired intermediate": (
        lambda s: s.front(s.issued(stale=True)), "tls", "not renewed with the leaf", "invoke renew",
    ),
    "a pinned certificate that has expired": (
        lambda s: s.pinned_front(start=-9 * DAY, end=-DAY),
        "tls", "pinned .* has expired", "^invoke renew",
    ),
    "a pinned certificate for another name": (
        lambda s: s.pinned_front("other.test"), "tls", "does not name relay.test", "^invoke renew",
    ),
    "self-signed": (
        lambda s: s.front(s.issued(self_signed=True)),
        "tls", "without a pin", "^invoke deploy --host hk1; if",
    ),
    "unknown authority": (lambda s: s.healthy(ca=None), "tls", "private or staging CA", "certificate.ca"),
    "no CA bundle": (lambda s: s.healthy(ca=s.folder / "absent.pem"), "tls", "not there", "certificate.ca"),
    "another certificate than the pinned": (
        lambda s: pinned(s, "ab" * 32), "tls", "not the pinned one", "^invoke renew",
    ),
    "a pinned certificate with its chain": (
        lambda s: pinned(s, pin_of(s.good)), "tls", "exactly one certificate", "^invoke renew",
    ),
    "plain HTTP on the TLS port": (front(tls=""), "tls", "TLS is off", "role:nginx"),
    "nginx rejects the name": (
        front(tls_more="ssl_reject_handshake on;"), "tls", "no certificate for relay.test", "role:nginx",
    ),
    "a hello with the name is reset": (filtered_name, "tls", "ICP filing", "ports.https"),
    "every hello is cut": (
        lambda s: s.instead(saying(b"")), "tls", "filter on the way, a listener", "role:nginx",
    ),
    "an SSH server on the TLS port": (
        lambda s: s.instead(saying(b"SSH-2.0-OpenSSH_9.2\r\n")), "tls", "another program", "role:nginx",
    ),
    "garbage on the TLS port": (
        lambda s: s.instead(saying(bytes(range(256)))), "tls", "another program", "role:nginx",
    ),
    "silence on the TLS port": (lambda s: s.instead(saying(b"", then=60)), "tls", "stalls", "role:nginx"),
    "trickling on the TLS port": (
        lambda s: s.instead(trickling(b"\x16\x03\x03\x40\x00")),
        "tls", "stalls", "role:nginx",
    ),
}  # fmt: skip
