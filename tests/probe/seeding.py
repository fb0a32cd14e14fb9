"""Real servers with one fault in them, and the check that the proof finds it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from probe.net import Patience
from probe.target import Target
from probe.verify import verify
from relay.keys.meta_certificate import new_meta_cert, pem_of
from tests.probe.authority import Authority, Issued
from tests.probe.faulty_servers import FaultyRelay, Script, answering, serving
from tests.probe.next_steps import check_next
from tests.probe.servers import DOMAIN, OURS, Backend, Front, backend, nginx, target

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

    async def faulty_relay(self, **fields: object) -> Target:
        """Start a server that looks like a relay up to a point."""
        # A fault may have any fields.
        return await self.instead(FaultyRelay(**fields), self.good)  # type: ignore[arg-type]

    async def stun(self, answer: Callable[[bytes, tuple[str, int]], bytes | None]) -> Target:
        return self.healthy(stun_port=await self.open.enter_async_context(answering(answer)))

    def issued(self, name: str = DOMAIN, **fields: object) -> Issued:
        return self.authority.issue(name, **fields)  # type: ignore[arg-type]  # as above

    def with_meta(self, key: bytes) -> Issued:
        """Return the good chain with a fast start's certificate for `key` behind it."""
        chain = self.folder / "meta.chain"
        chain.parent.mkdir(exist_ok=True, parents=True)
        chain.write_text(self.good.chain.read_text() + pem_of(new_meta_cert(key, 1.8e9)))
        return Issued(chain, self.good.key)


Seed = Callable[[Stage], object]
Fault = tuple[Seed, str, str, str]
"""(seed, rung, cause, next): the first broken rung, and regular expressions for its cause and next
step."""


def front(**fields: str) -> Seed:
    """Return the fault of a real nginx that has these parts in its configuration."""
    return lambda stage: stage.front(None, None, **fields)


def find(stage: Stage, fault: Fault) -> None:
    """Seed the fault and climb: the proof has to find it on its rung and to name it."""
    seed, rung, cause, step = fault

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
        check_next(broken)
        assert broken.detail

    asyncio.run(climb())


def pin_of(issued: Issued) -> str:
    first = issued.chain.read_text().partition("-----END CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0] + first[1] + "\n")).hexdigest()
