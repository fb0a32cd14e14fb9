"""Work out which program listens where on a relay host. Pure.

Roles read a `Wiring` instead of comparing the words of the site file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inventory.choices import answers_http, front_of, program_of, runner_of, source_of
from inventory.model import Host

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Endpoint:
    """A TCP port to listen on. `address`: "" for every address of the host."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Use:
    """A port that the deployed host uses.

    `key`: where the site file has it. `public`: on every address, for everybody, else on loopback.
    `sources`: the addresses that it is for, on every address as well. `stops`: the unit that has
    the port as well, and is stopped meanwhile.
    """

    proto: str
    port: int
    program: str  # of a row of FRONTS, or "certbot"
    purpose: str
    key: str
    public: bool = True
    sources: tuple[str, ...] = ()
    stops: str | None = None


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """The listeners of one host.

    `public`: the port that clients dial.
    `relay`: where the relay listens; equal to `public` with no front.
    `relay_has_tls`: the relay needs the certificate, and the front does not.
    `relay_is_published`: Docker forwards to the relay's ports: INPUT sees no packet for them.
    `http_by`: the program that answers on the http port; certbot does so only during its orders.
    `uses`: every port that is used.
    `proxies`: addresses and CIDRs that are believed about the client's address, with a front.
    `front_is_others`: the operator keeps the front; nothing of it is ours to check or change.
    """

    public: Endpoint
    relay: Endpoint
    relay_has_tls: bool
    relay_is_published: bool
    http_by: Literal["front", "relay", "certbot"]
    uses: tuple[Use, ...]
    proxies: tuple[str, ...]
    front_is_others: bool

    @property
    def relay_reads_proxy_header(self) -> bool:
        """Return whether connections to the relay begin with a header of the PROXY protocol."""
        return self.relay_is_hidden and self.relay_has_tls

    @property
    def relay_is_hidden(self) -> bool:
        """Return whether a front is between clients and the relay."""
        return self.relay != self.public

    @property
    def reached_at(self) -> str:
        """Return where this host reaches the port that clients dial, as address:port.

        Not every provider lets a host reach its own public address. On loopback every front and
        every relay listens.
        """
        return f"{LOOPBACK}:{self.public.port}"

    @property
    def public_program(self) -> str:
        """Return the program that clients reach, of a row of FRONTS."""
        [program] = [use.program for use in self.uses if use.key == "ports.https"]
        return program

    @property
    def relay_http_port(self) -> int:
        """Return the http port if the relay itself listens on it, else -1, as in its flags."""
        http = [use.port for use in self.uses if use.key == "ports.http"]
        return http[0] if self.http_by == "relay" else -1


def wire(host: Host) -> Wiring:
    """Return the wiring that the host's choices and ports make."""
    front = front_of(host)
    public = Endpoint("", host.ports.https)
    return Wiring(
        public=public,
        relay=Endpoint(LOOPBACK, host.ports.backend) if front.hides_relay else public,
        relay_has_tls=not front.terminates_tls,
        # Docker forwards IPv6 through its own proxy: STUN would answer every client with the
        # address of Docker's bridge.
        relay_is_published=runner_of(host).in_container and host.ipv6 is None,
        http_by=_http_by(host),
        uses=_uses(host),
        proxies=(LOOPBACK, *(map(str, host.external.trusted) if host.external else ())),
        front_is_others=front.is_others,
    )


def _http_by(host: Host) -> Literal["front", "relay", "certbot"]:
    if front_of(host).answers_http:
        return "front"
    return "relay" if answers_http(host) else "certbot"


def _uses(host: Host) -> tuple[Use, ...]:
    """Return every port that the host's configuration asks for."""
    ports, front = host.ports, front_of(host)
    http = {
        "front": (
            front.program, f"{front.program} is to answer certificate challenges and captive-portal checks"
        ),
        "relay": ("relay", "the relay is to answer captive-portal checks"),
        "certbot": ("certbot", "certbot is to answer certificate challenges"),
    }
    found = [
        Use("tcp", ports.https, front.program, "https is to be served", "ports.https"),
        Use("udp", ports.stun, "relay", "the relay is to answer STUN", "ports.stun"),
        Use("tcp", ports.http, *http[_http_by(host)], "ports.http", stops=host.certificate.stop),
    ]
    if front.hides_relay:
        purpose = f"the relay is to listen behind {front.program}"
        found.append(Use("tcp", ports.backend, "relay", purpose, "ports.backend", public=False))
    if front.is_others and source_of(host).is_acme:
        purpose = f"certbot is to answer the challenges that {front.program} hands on"
        found.append(Use("tcp", ports.challenge, "certbot", purpose, "ports.challenge", public=False))
    if program_of(host).has_own_metrics and ports.metrics is not None:
        purpose = "the relay is to serve its metrics"
        sources = tuple(map(str, host.metrics.allow))
        place = ("tcp", ports.metrics, "relay", purpose, "ports.metrics")
        found.append(Use(*place, public=False, sources=sources))
    return tuple(found)
