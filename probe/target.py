"""The relay to prove, as the outside sees it. Frozen data, no I/O."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from inventory.admission import verifies
from inventory.choices import answers_http, front_of
from inventory.errors import DerpfleetError
from inventory.model import Host, Site
from probe.keys import Prover

Admission = Literal["open", "verify", "unknown"]
Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Resolves a host name to its addresses as text, both families; raises OSError."""


class Part(Enum):
    """The part of a relay host that is broken."""

    FIREWALL = auto()
    # the first program that clients reach; the relay itself if nothing is in front of it
    FRONT = auto()
    CERTIFICATE = auto()
    RELAY = auto()
    # the relay's process, which a deploy leaves alone while it runs with the wanted files
    PROCESS = auto()


Deploy = Callable[[Part], str]
"""Returns the command that deploys one part of a host again, or restarts it."""


class BadAddress(DerpfleetError):
    """`--address` names no relay."""

    exit_code = 4


@dataclass(frozen=True, kw_only=True)
class Target:
    """A relay as clients know it.

    `ipv4`, `ipv6`: the addresses that it must have; None: any that the name resolves to.
    `http_port`, `stun_port`: None when it offers none. `ca`: PEM bundle of roots that are trusted
    besides the system's. `pin`: lower-case hex SHA-256 of the one certificate (the map's
    `sha256-raw:`), instead of a CA. `expect_admission`: may a stranger's key in (`open`), or not
    (`verify`)? `prover`: the keys that let our two clients into a relay that verifies. `fronted`:
    our nginx is in front of it. `region_id`: its region in the served map. `resolve`: used instead
    of the system's resolver. `deploy`: returns the command that fixes a part of this host; None:
    somebody else runs it.
    """

    name: str
    domain: str
    https_port: int = 443
    http_port: int | None = 80
    stun_port: int | None = 3478
    ipv4: str | None = None
    ipv6: str | None = None
    ca: Path | None = None
    pin: str | None = None
    expect_admission: Admission = "unknown"
    prover: Prover | None = None
    fronted: bool = True
    region_id: int | None = None
    resolve: Resolve | None = None
    deploy: Deploy | None = None

    @classmethod
    def from_host(
        cls,
        host: Host,
        site: Site,
        *,
        deploy: Deploy | None,
        ca: Path | None = None,
        pin: str | None = None,
        prover: Prover | None = None,
    ) -> Target:
        """Make the target of a site's relay host.

        `pin` and `ca` come from the deploy; `ca` defaults to the ACME server's own bundle. The
        prover's keys are of use only at a relay that verifies. `deploy`: None for a relay that
        somebody else runs.
        """
        refuses_strangers = verifies(host, site)
        if ca is None and host.certificate.ca is not None:
            ca = Path(host.certificate.ca)
        return cls(
            name=host.name,
            domain=host.domain,
            https_port=host.ports.https,
            http_port=host.ports.http if answers_http(host) else None,
            stun_port=host.ports.stun,
            ipv4=str(host.ipv4) if host.ipv4 else None,
            ipv6=str(host.ipv6) if host.ipv6 else None,
            ca=ca,
            pin=pin,
            expect_admission="verify" if refuses_strangers else "open",
            prover=prover if refuses_strangers else None,
            fronted=host.managed and front_of(host).hides_relay,
            region_id=host.region.id,
            deploy=deploy,
        )

    @classmethod
    def from_address(
        cls,
        address: str,
        *,
        stun_port: int | None = 3478,
        ca: Path | None = None,
        pin: str | None = None,
        prover: Prover | None = None,
    ) -> Target:
        """Make the target of any DERP server: `relay.example.org`, `relay.example.org:3489`,
        `203.0.113.7:443`, `[2001:db8::7]:443`.

        Raises BadAddress.
        """
        bad = BadAddress(
            f"{address!r} is not the address of a relay",
            why="it has to be host or host:port",
            next="invoke verify --address relay.example.org:443",
        )
        if "://" in address or "/" in address:
            raise bad
        try:
            parts = urlsplit(f"//{address}")
            domain, port = parts.hostname or "", parts.port or 443
        except ValueError:
            raise bad from None
        if not domain or parts.username is not None:
            raise bad
        if pin is not None and not re.fullmatch("[0-9a-f]{64}", pin):
            raise BadAddress(
                f"{pin!r} is not a pin", why="it has to be a sha256 of 64 hex digits, in lower case"
            )
        return cls(
            name=address, domain=domain, https_port=port, stun_port=stun_port, ca=ca, pin=pin, prover=prover
        )

    @property
    def is_address(self) -> bool:
        """Whether clients reach it by a literal address: they then send no server name, and there
        is nothing to resolve."""
        try:
            ip_address(self.domain)
        except ValueError:
            return False
        return True

    @property
    def managed(self) -> bool:
        """Whether it is a host of our site that `invoke deploy` can fix."""
        return self.deploy is not None

    @property
    def of_site(self) -> bool:
        """Whether it is a host of our site. Somebody else may run it."""
        return self.managed or self.region_id is not None

    @property
    def again(self) -> str:
        """The command that repeats this proof."""
        if self.of_site:
            return f"invoke verify --host {self.name}"
        given = (
            ("ca", self.ca),
            ("pin", self.pin),
            ("stun-port", (self.stun_port or 0) if self.stun_port != 3478 else None),
        )
        return " ".join(
            [
                f"invoke verify --address {self.name}",
                *(f"--{name} {value}" for name, value in given if value is not None),
            ]
        )

    @property
    def deploy_all(self) -> str:
        """The command that deploys all of this host again, or proves a relay of others again."""
        return f"invoke deploy --host {self.name}" if self.managed else self.again

    @property
    def read_log(self) -> str:
        """The step where only the relay itself can say what is wrong: no deploy changes that."""
        where = f"invoke logs --host {self.name} --relay" if self.managed else "read the relay's log"
        return f"{where}, then {self.again}"

    def redeploy(self, part: Part, otherwise: str, *, unchanged: str = "") -> str:
        """Return the next command: the deploy of one part of our host, else the step for the
        relay's owner.

        `unchanged`: the step for a host that is as the site file says, where a deploy does nothing.
        """
        if self.deploy is None:
            return f"{otherwise}, then {self.again}"
        return self.deploy(part) + (f"; if that changes nothing: {unchanged}" if unchanged else "")

    def restart(self, otherwise: str = "restart the relay") -> str:
        """Return the command that restarts the relay's process: a deploy leaves it running."""
        return self.redeploy(Part.PROCESS, otherwise)

    @property
    def one_host(self) -> str:
        """The step where several relays answer under one name."""
        return f"let every A and AAAA record of {self.domain} lead to this one relay, then {self.again}"
