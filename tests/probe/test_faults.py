"""The catalogue of faults: each is seeded in a real server; the proof has to find it on the right
rung and name it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from probe.keys import new_prover
from probe.net import Patience
from probe.target import Target
from probe.verify import verify
from relay.core.handshake import make_private_key, public_key
from relay.core.wire import pack_frame
from relay.keys.meta_certificate import new_meta_cert, pem_of
from tests.probe.actors import (
    SWITCH,
    Quack,
    Script,
    answering,
    backlog_full,
    filtering,
    saying,
    serving,
    stun_saying,
    trickling,
)
from tests.probe.authority import DAY, Authority, Issued
from tests.probe.servers import (
    DOMAIN,
    LOOPBACK,
    OURS,
    UPGRADE,
    Backend,
    Front,
    backend,
    free_port,
    nginx,
    target,
)

HASTE = Patience(
    name_s=0.8, tcp_s=0.8, stun_s=0.8, tls_s=1.5, http_s=1.5, derp_s=2.0, packets_s=2.0, idle_s=2.5
)


@dataclass
class Stage:
    """The servers in which a fault is seeded."""

    authority: Authority
    good: Issued
    relay: Backend
    closed: Backend
    fronted: tuple[int, int]
    folder: Path
    open: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    def healthy(self, **fields: object) -> Target:
        return target(*self.fronted, self.relay.stun, **({"ca": self.authority.ca} | fields))

    def front(self, issued: Issued | None = None, behind: Backend | None = None, **fields: str) -> Target:
        """Start a real nginx with one fault."""
        https, http = self.open.enter_context(
            nginx(Front.of(issued or self.good, **fields), behind or self.relay, self.folder)
        )
        return target(https, http, self.relay.stun, ca=self.authority.ca)

    def bare(self, issued: Issued) -> Target:
        """Start a real relay that does TLS itself, with no front."""
        certs = self.folder / "certs"
        certs.mkdir(parents=True)
        (certs / f"{DOMAIN}.crt").write_bytes(issued.chain.read_bytes())
        (certs / f"{DOMAIN}.key").write_bytes(issued.key.read_bytes())
        running = self.open.enter_context(
            backend(OURS, self.folder, "-certmode", "manual", "-certdir", str(certs))
        )
        return target(running.port, None, running.stun, ca=self.authority.ca)

    def pinned_front(self, name: str = DOMAIN, **fields: object) -> Target:
        issued = self.issued(name, self_signed=True, **fields)
        return replace(self.front(issued), pin=pin_of(issued))

    async def instead(self, script: Script, issued: Issued | None = None, **fields: object) -> Target:
        """Start a scripted server as the https port."""
        port = await self.open.enter_async_context(serving(script, issued))
        return self.healthy(https_port=port, **fields)

    async def quacks(self, **fields: object) -> Target:
        """Start a server that looks like a relay up to a point."""
        return await self.instead(Quack(**fields), self.good)  # type: ignore[arg-type]

    async def stun(self, answer: Callable[[bytes, tuple[str, int]], bytes | None]) -> Target:
        return self.healthy(stun_port=await self.open.enter_async_context(answering(answer)))

    def issued(self, name: str = DOMAIN, **fields: object) -> Issued:
        return self.authority.issue(name, **fields)  # type: ignore[arg-type]

    def with_meta(self, key: bytes) -> Issued:
        """Return the good chain with a fast start's certificate for `key` behind it."""
        chain = self.folder / "meta.chain"
        chain.parent.mkdir(exist_ok=True, parents=True)
        chain.write_text(self.good.chain.read_text() + pem_of(new_meta_cert(key, 1.8e9)))
        return Issued(chain, self.good.key)


@pytest.fixture
def stage(
    authority: Authority,
    good: Issued,
    relay: Backend,
    closed: Backend,
    fronted: tuple[int, int],
    tmp_path: Path,
) -> Stage:
    return Stage(authority, good, relay, closed, fronted, tmp_path / "front")


def resolving(*addresses: str) -> Callable[[str], object]:
    async def resolve(_: str) -> list[str]:
        return list(addresses)

    return resolve


async def no_such_name(_: str) -> list[str]:
    import socket

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


FRESH = make_private_key()
HUGE_HEAD = b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"x" * 400_000
GREETING_WITH_WRONG_MAGIC = SWITCH + b"\r\n" + pack_frame(1, b"DERQ" + bytes(36))
HUGE_FRAME = SWITCH + b"\r\n" + b"\x01\xff\xff\xff\xff" + b"x" * 100_000


FLOOD = pack_frame(0x7F, bytes(60_000)) * 80


async def full_backlog(stage: Stage) -> Target:
    return stage.healthy(https_port=stage.open.enter_context(backlog_full()))


async def filtered_name(stage: Stage) -> Target:
    return await stage.instead(filtering(DOMAIN, stage.fronted[0]))


def stranger(stage: Stage) -> Target:
    return stage.healthy(expect_admission="verify")


def two_families(stage: Stage) -> Target:
    return stage.healthy(ipv6="::1", resolve=resolving(LOOPBACK, "::1"))


def pinned(stage: Stage, pin: str) -> Target:
    return stage.healthy(pin=pin)


def pin_of(issued: Issued) -> str:
    import hashlib
    import ssl

    first = issued.chain.read_text().partition("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0] + first[1] + "\n")).hexdigest()


def closed_port() -> int:
    return free_port()


def in_map(**node: object) -> dict[str, object]:
    served = {"name": "900a", "regionid": 900, "hostname": DOMAIN} | node
    return {"regions": {900: {"regionid": 900, "nodes": [served]}}}


# fault -> (seed, rung, cause, next): the first broken rung, and regular expressions for its cause
# and next step.
Seed = Callable[[Stage], object]
FAULTS: dict[str, tuple[Seed, str, str, str]] = {
    # name
    "the name does not exist": (
        lambda s: s.healthy(resolve=no_such_name),
        "name",
        "does not exist",
        "set A 127.0.0.1 for relay.test",
    ),
    "the resolver is silent": (
        lambda s: s.healthy(resolve=silent_resolver),
        "name",
        "resolver .* does not answer",
        "dig relay.test",
    ),
    "A points elsewhere": (
        lambda s: s.healthy(resolve=resolving("198.51.100.7")),
        "name",
        "A record points elsewhere",
        "set A of",
    ),
    "A points elsewhere too": (
        lambda s: s.healthy(resolve=resolving(LOOPBACK, "198.51.100.7")),
        "name",
        "A record also points",
        "set A of",
    ),
    "behind a CDN": (
        lambda s: s.healthy(resolve=resolving("104.16.1.1", "2606:4700::1")),
        "name",
        "Cloudflare",
        "DNS only",
    ),
    "a proxy's fake address": (
        lambda s: s.healthy(resolve=resolving("198.18.0.5")),
        "name",
        "fake-ip",
        "exempt the name",
    ),
    "a blocked name": (lambda s: s.healthy(ipv4="198.51.100.7"), "name", "blocked", "another resolver"),
    # TCP
    "nothing listens on the https port": (
        lambda s: s.healthy(https_port=closed_port()),
        "tcp",
        "nothing listens",
        "role:nginx",
    ),
    "a packet filter before the https port": (full_backlog, "tcp", "packet filter", "provider's console"),
    "nothing listens on the http port": (
        lambda s: s.healthy(http_port=closed_port()),
        "tcp80",
        "nothing listens",
        "role:nginx",
    ),
    "no listener on IPv6": (two_families, "tcp", "nothing listens", "role:nginx"),
    # STUN
    "STUN on another port": (
        lambda s: s.healthy(stun_port=closed_port()),
        "stun4",
        "nothing listens",
        "role:relay",
    ),
    "STUN closed": (
        lambda s: s.stun(lambda *_: None),
        "stun4",
        "closed in the provider's security group",
        "role:firewall",
    ),
    "STUN sees a container's bridge": (
        lambda s: s.stun(stun_saying("172.17.0.1")),
        "stun4",
        "answer is wrong",
        "role:relay",
    ),
    "STUN answers another's request": (lambda s: s.stun(wrong_txid), "stun4", "transaction id", "role:relay"),
    "STUN answers an error": (lambda s: s.stun(stun_error), "stun4", "error", "role:relay"),
    "STUN without an address": (lambda s: s.stun(no_address), "stun4", "no mapped address", "role:relay"),
    "garbage on the STUN port": (
        lambda s: s.stun(lambda *_: b"garbage"),
        "stun4",
        "does not speak STUN",
        "role:relay",
    ),
    # TLS
    "wrong name in the certificate": (
        lambda s: s.front(s.issued("other.test")),
        "tls",
        "another site's certificate",
        "role:certificate",
    ),
    "expired": (
        lambda s: s.front(s.issued(start=-90 * DAY, end=-DAY)),
        "tls",
        "not renewed",
        "invoke renew --host hk1",
    ),
    "not yet valid": (lambda s: s.front(s.issued(start=DAY)), "tls", "clock", "timedatectl"),
    "missing intermediate": (
        lambda s: s.front(s.issued(full=False)),
        "tls",
        "intermediate certificate is missing",
        "role:certificate",
    ),
    "an expired intermediate": (
        lambda s: s.front(s.issued(stale=True)),
        "tls",
        "not renewed with the leaf",
        "invoke renew",
    ),
    "a pinned certificate that has expired": (
        lambda s: s.pinned_front(start=-9 * DAY, end=-DAY),
        "tls",
        "pinned .* has expired",
        "role:certificate",
    ),
    "a pinned certificate for another name": (
        lambda s: s.pinned_front("other.test"),
        "tls",
        "does not name relay.test",
        "role:certificate",
    ),
    "self-signed": (
        lambda s: s.front(s.issued(self_signed=True)),
        "tls",
        "without a pin",
        "role:certificate",
    ),
    "unknown authority": (lambda s: s.healthy(ca=None), "tls", "private or staging CA", "certificate.ca"),
    "no CA bundle": (lambda s: s.healthy(ca=s.folder / "absent.pem"), "tls", "not there", "certificate.ca"),
    "another certificate than the pinned": (
        lambda s: pinned(s, "ab" * 32),
        "tls",
        "not the pinned one",
        "role:certificate",
    ),
    "a pinned certificate with its chain": (
        lambda s: pinned(s, pin_of(s.good)),
        "tls",
        "exactly one certificate",
        "role:certificate",
    ),
    "plain HTTP on the TLS port": (lambda s: s.front(tls=""), "tls", "TLS is off", "role:relay"),
    "nginx rejects the name": (
        lambda s: s.front(tls_more="ssl_reject_handshake on;"),
        "tls",
        "no certificate for relay.test",
        "role:nginx",
    ),
    "a hello with the name is reset": (filtered_name, "tls", "ICP filing", "ports.https"),
    "every hello is cut": (
        lambda s: s.instead(saying(b"")),
        "tls",
        "filter on the way, a listener",
        "role:nginx",
    ),
    "an SSH server on the TLS port": (
        lambda s: s.instead(saying(b"SSH-2.0-OpenSSH_9.2\r\n")),
        "tls",
        "another program",
        "role:nginx",
    ),
    "garbage on the TLS port": (
        lambda s: s.instead(saying(bytes(range(256)))),
        "tls",
        "another program",
        "role:nginx",
    ),
    "silence on the TLS port": (lambda s: s.instead(saying(b"", then=60)), "tls", "stalls", "role:nginx"),
    "trickling on the TLS port": (
        lambda s: s.instead(trickling(b"\x16\x03\x03\x40\x00")),
        "tls",
        "stalls",
        "role:nginx",
    ),
    # HTTP
    "another site answers everything": (
        lambda s: s.front(root="default_type text/html; return 200 '<h1>It works</h1>';"),
        "probe",
        "not a DERP server",
        "role:nginx",
    ),
    "another site knows no such page": (
        lambda s: s.front(root="return 404;"),
        "probe",
        "another web server",
        "role:nginx",
    ),
    "the relay behind nginx is down": (
        lambda s: s.front(behind=Backend(free_port(), 0)),
        "probe",
        "relay behind it",
        "role:relay",
    ),
    "garbage instead of HTTP": (
        lambda s: s.instead(saying(b"\0garbage\r\n\r\n"), s.good),
        "probe",
        "does not speak HTTP",
        "role:nginx",
    ),
    "a trickling answer": (
        lambda s: s.instead(trickling(b"HTTP/1.1 200 OK\r\n"), s.good),
        "probe",
        "hangs",
        "role:nginx",
    ),
    "huge headers": (lambda s: s.instead(saying(HUGE_HEAD), s.good), "probe", "bounds", "role:nginx"),
    "no answer at all": (
        lambda s: s.instead(saying(b""), s.good),
        "probe",
        "does not speak HTTP|cut instead",
        "role:nginx",
    ),
    "port 80 only redirects": (
        lambda s: s.front(port_80=""),
        "generate_204",
        "default site of port 80",
        "role:nginx",
    ),
    "the relay behind port 80 is down": (
        lambda s: s.front(
            port_80=f"location = /generate_204 {{ proxy_pass http://127.0.0.1:{free_port()}; }}"
        ),
        "generate_204",
        "relay behind it",
        "role:relay",
    ),
    "a 204 without the challenge": (
        lambda s: s.front(port_80="location = /generate_204 { return 204; }"),
        "generate_204",
        "by itself",
        "role:nginx",
    ),
    # upgrade
    "nginx without the upgrade headers": (
        lambda s: s.front(location=""),
        "upgrade",
        "drops the headers",
        "role:nginx",
    ),
    "no /derp behind the probe": (
        lambda s: s.quacks(upgrade=saying(b"HTTP/1.1 404 Not Found\r\n\r\n")),
        "upgrade",
        "another web server",
        "role:nginx",
    ),
    "the backend dies at the upgrade": (
        lambda s: s.quacks(upgrade=saying(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")),
        "upgrade",
        "relay behind it",
        "role:relay",
    ),
    "101 and then silence": (
        lambda s: s.quacks(upgrade=saying(SWITCH + b"\r\n", then=60)),
        "upgrade",
        "blank line are lost",
        "role:nginx",
    ),
    "101 and then garbage": (
        lambda s: s.quacks(upgrade=saying(SWITCH + b"\r\ngarbage")),
        "upgrade",
        "not a DERP server",
        "role:nginx",
    ),
    "a greeting with the wrong magic": (
        lambda s: s.quacks(upgrade=saying(GREETING_WITH_WRONG_MAGIC)),
        "upgrade",
        "not a DERP server",
        "role:nginx",
    ),
    "a frame of 4 GiB": (
        lambda s: s.quacks(upgrade=saying(HUGE_FRAME)),
        "upgrade",
        "not a DERP server",
        "role:nginx",
    ),
    "a trickling upgrade": (
        lambda s: s.quacks(upgrade=trickling(b"HTTP/1.1 101 Switching Protocols\r\n")),
        "upgrade",
        "hangs",
        "role:nginx",
    ),
    "huge headers at the upgrade": (
        lambda s: s.quacks(upgrade=saying(HUGE_HEAD)),
        "upgrade",
        "not a DERP server",
        "role:nginx",
    ),
    "hung up at the upgrade": (
        lambda s: s.quacks(upgrade=saying(b"")),
        "upgrade",
        "hung up|not a DERP server",
        "role:",
    ),
    "the header names another key": (
        lambda s: s.quacks(header_key=public_key(FRESH)),
        "upgrade",
        "two relays",
        "role:relay",
    ),
    "two relays behind one name": (
        lambda s: s.quacks(fresh_key=True),
        "upgrade",
        "several relays",
        "role:nginx",
    ),
    "a left-over fast start certificate": (
        lambda s: s.bare(s.with_meta(public_key(FRESH))),
        "upgrade",
        "left over",
        "role:relay",
    ),
    "a proxy that serves the fast start's certificate": (
        lambda s: s.front(s.with_meta(public_key(FRESH))),
        "upgrade",
        "extra certificate",
        "role:",
    ),
    # admission
    "a stranger admitted where verification is expected": (
        stranger,
        "handshake",
        "admits every key",
        "role:relay",
    ),
    "a stranger refused where the relay should be open": (
        lambda s: s.front(behind=s.closed),
        "handshake",
        "should be open",
        "role:relay",
    ),
    "the prover's keys refused": (
        lambda s: replace(s.front(behind=s.closed), expect_admission="verify", prover=new_prover()),
        "handshake",
        "allow-list",
        "role:relay",
    ),
    "the admission controller hangs": (
        lambda s: s.quacks(after_info=lambda _: b""),
        "handshake",
        "waits for its admission",
        "role:relay",
    ),
    "garbage instead of ServerInfo": (
        lambda s: s.quacks(after_info=lambda _: pack_frame(3, bytes(60))),
        "handshake",
        "no DERP server",
        "role:relay",
    ),
    "a flood instead of ServerInfo": (
        lambda s: s.quacks(after_info=lambda _: FLOOD),
        "handshake",
        "no DERP server",
        "role:relay",
    ),
    # packets
    "a relay that loses its clients": (
        lambda s: s.quacks(loses=True),
        "packets",
        "lost a client",
        "role:nginx",
    ),
    "a relay that swallows packets": (
        lambda s: s.quacks(deliver=lambda _: None),
        "packets",
        "drops their packets",
        "role:relay",
    ),
    "a relay that changes packets": (
        lambda s: s.quacks(deliver=lambda p: p[:-1] + b"!"),
        "packets",
        "as they are",
        "role:relay",
    ),
    "large packets get stuck": (lambda s: s.quacks(most=10_000), "packets", "path MTU", "role:relay"),
    "a relay that hangs up on packets": (
        lambda s: s.quacks(deliver=_crash),
        "packets",
        "hung up",
        "role:relay",
    ),
    # idle
    "nginx cuts idle connections": (
        lambda s: s.front(location=UPGRADE + " proxy_read_timeout 1s;"),
        "idle",
        "proxy_read_timeout",
        "role:nginx",
    ),
}


def _crash(_: bytes) -> bytes:
    raise EOFError


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found_and_named(fault: str, stage: Stage) -> None:
    seed, rung, cause, step = FAULTS[fault]

    async def climb() -> None:
        async with stage.open:
            seeded = seed(stage)
            faulty = await seeded if asyncio.iscoroutine(seeded) else seeded
            proof = await verify(faulty, thorough=rung == "idle", patience=HASTE)
        assert not proof.ok
        broken = proof.failed_rung
        assert broken is not None, proof.to_json()
        assert broken.name == rung, broken
        assert re.search(cause, broken.cause), broken
        assert re.search(step, broken.next), broken
        assert broken.detail

    asyncio.run(climb())
