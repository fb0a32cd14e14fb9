"""Say what each word of the site file's four choices implies. Pure data, read by roles, probe and fleet.

Code asks a property of the choice instead of comparing its name, so that a new word is one more row of a table here. Each
table has a row for every word of its Literal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # the model needs pydantic, and these tables do not
    from inventory.model import Host

FlavourName = Literal["python", "docker"]
FrontName = Literal["nginx", "none"]
SourceName = Literal["letsencrypt", "letsencrypt-staging", "acme", "manual", "self-signed"]
FirewallModeName = Literal["enforce", "off"]


@dataclass(frozen=True, kw_only=True)
class Front:
    """What is in front of the relay."""

    program: str  # the program that clients reach: what a listener is called in messages
    terminates_tls: bool  # else the relay does
    answers_http: bool  # port 80: certificate challenges and the captive-portal check
    hides_relay: bool  # the relay listens on loopback, at ports.backend


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """Which program the relay is, and what keeps it alive."""

    in_container: bool  # from an image, with ports that Docker publishes; else our release under systemd
    has_metrics_port: bool  # serves metrics on ports.metrics, on loopback; else beside DERP, to its own loopback
    has_allow_list: bool  # may hold the prover's keys; else only the mesh key lets the prover in
    tls_only_on_443: bool  # with its own Let's Encrypt it serves plain HTTP on every other port


@dataclass(frozen=True, kw_only=True)
class CertificateSource:
    """Where the certificate comes from."""

    is_acme: bool = False  # certbot orders and renews it
    directory: str = ""  # of the ACME server, where the source is one; else certificate.server names it
    needs_files: bool = False  # the controller sends certificate.fullchain and certificate.key
    needs_pin: bool = False  # no CA vouches for it, so that clients have to know its SHA-256

    @property
    def is_letsencrypt(self) -> bool:
        """Return whether it is Let's Encrypt's, which wants its terms accepted and asks on port 80 only."""
        return bool(self.directory)


@dataclass(frozen=True, kw_only=True)
class FirewallMode:
    """What happens to ports that are not listed."""

    closes: bool


FRONTS: Mapping[FrontName, Front] = {
    "nginx": Front(program="nginx", terminates_tls=True, answers_http=True, hides_relay=True),
    "none": Front(program="relay", terminates_tls=False, answers_http=False, hides_relay=False),
}
FLAVOURS: Mapping[FlavourName, Flavour] = {
    "python": Flavour(in_container=False, has_metrics_port=True, has_allow_list=True, tls_only_on_443=False),
    "docker": Flavour(in_container=True, has_metrics_port=False, has_allow_list=False, tls_only_on_443=True),
}
SOURCES: Mapping[SourceName, CertificateSource] = {
    "letsencrypt": CertificateSource(is_acme=True, directory="https://acme-v02.api.letsencrypt.org/directory"),
    "letsencrypt-staging": CertificateSource(is_acme=True, directory="https://acme-staging-v02.api.letsencrypt.org/directory"),
    "acme": CertificateSource(is_acme=True),
    "manual": CertificateSource(needs_files=True),
    "self-signed": CertificateSource(needs_pin=True),
}
FIREWALLS: Mapping[FirewallModeName, FirewallMode] = {
    "enforce": FirewallMode(closes=True),
    "off": FirewallMode(closes=False),
}


def front_of(host: Host) -> Front:
    """Return what the host's front implies."""
    return FRONTS[host.front]


def flavour_of(host: Host) -> Flavour:
    """Return what the host's flavour implies."""
    return FLAVOURS[host.flavour]


def source_of(host: Host) -> CertificateSource:
    """Return what the source of the host's certificate implies."""
    return SOURCES[host.certificate.source]


def firewall_of(host: Host) -> FirewallMode:
    """Return what the host's firewall mode implies."""
    return FIREWALLS[host.firewall.mode]


def answers_http(host: Host) -> bool:
    """Return whether something always answers on the http port: the front, or the relay itself.

    With an ACME certificate, a relay with no front leaves that port to certbot.
    """
    return front_of(host).answers_http or not source_of(host).is_acme
