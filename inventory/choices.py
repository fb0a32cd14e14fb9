"""The meaning of each word of the site file's choices. Pure data, read by roles, probe and fleet.

Code asks a property of the choice instead of comparing its name, so that a new word is one more row
of a table here. Each table has a row for every word of its Literal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # the model needs pydantic, and these tables do not
    from inventory.acme import DnsZone
    from inventory.model import External, Host

FlavourName = Literal["python", "docker", "native", "supervisord"]
ProgramName = Literal["python", "derper"]
RunnerName = Literal["systemd", "docker", "supervisord"]
AdmissionName = Literal["headscale", "url", "tailscaled", "keys", "open"]
FrontName = Literal["nginx", "nginx-stream", "direct", "none", "external"]
ExternalName = Literal["nginx-stream", "haproxy", "caddy", "traefik", "other"]
TlsName = Literal["passthrough", "terminated"]
SourceName = Literal[
    "letsencrypt", "letsencrypt-staging", "acme", "manual", "on-host", "self-signed", "front"
]
SourceWord = Literal[SourceName, "auto"]
ChallengeName = Literal["http", "dns", "standalone"]
CertbotName = Literal["shipped", "distribution"]
RenewalName = Literal["timer", "cron"]
DnsProviderName = Literal["rfc2136", "cloudflare", "route53", "aliyun", "tencent"]
FirewallModeName = Literal["enforce", "ufw", "firewalld", "auto", "off"]
DockerName = Literal["distribution", "docker"]
ControlName = Literal["headscale", "map-file", "tailscale", "paste"]
PackagesFromName = Literal["host", "controller"]
MirroredName = Literal["debian", "ubuntu", "rocky", "almalinux"]


@dataclass(frozen=True, kw_only=True)
class FrontProgram:
    """A program in front of the relay, or none."""

    program: str  # the program that clients reach, for messages
    terminates_tls: bool  # else the relay does
    answers_http: bool  # port 80: certificate challenges and the captive-portal check
    hides_relay: bool  # the relay listens on loopback, at ports.backend
    is_others: bool = False  # the operator keeps it: we write no file of it

    @property
    def passes_tls_on(self) -> bool:
        """Whether it hands the clients' TLS to the relay, with their addresses in PROXY headers."""
        return self.hides_relay and not self.terminates_tls


@dataclass(frozen=True, kw_only=True)
class ExternalProgram:
    """A front that the operator keeps. `tls`: the ways that it can treat the clients' TLS."""

    tls: tuple[TlsName, ...]


@dataclass(frozen=True, kw_only=True)
class RelayProgram:
    """The program that the relay is."""

    kept_by: str  # why it runs only under the runners of FLAVOURS, in words
    is_python: bool  # a release for the host's own Python; else for its architecture, or an image
    has_own_metrics: bool  # for root, or at ports.metrics; else beside DERP, for loopback only
    has_prober_keys: bool  # admits our proof by public keys; else only a mesh key lets it in
    reads_proxy_header: bool  # of the PROXY protocol, v1 and v2
    tls_only_on_443: bool  # with its own Let's Encrypt it serves plain HTTP on every other port


@dataclass(frozen=True, kw_only=True)
class RelayRunner:
    """The keeper of the relay's process."""

    in_container: bool  # runs an image, with ports that Docker publishes


@dataclass(frozen=True, kw_only=True)
class AdmissionRule:
    """The judge of the clients that may use the relay.

    `url`: it is asked by http: at the site's headscale, at relay.verify_client_url, or "" for none.
    `by_derper`: derper can be told so, and `in_container` also there.
    `keys`: the keys of `relay` that go with it, of which it needs exactly one if `needs_key`.
    """

    verifies: bool = True  # else everyone may use it
    url: Literal["", "headscale", "relay"] = ""
    by_derper: bool = True
    in_container: bool = True
    keys: tuple[str, ...] = ()
    needs_key: bool = False


class Combination(NamedTuple):
    """A program under a runner."""

    program: ProgramName
    under: RunnerName


@dataclass(frozen=True, kw_only=True)
class CertificateSource:
    """The source of the certificate."""

    is_acme: bool = False  # certbot orders and renews it
    directory: str = ""  # the ACME server's URL, unless certificate.server has it
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # as LETSENCRYPTS has them
    needs_files: bool = False  # the controller sends certificate.fullchain and certificate.key
    is_on_host: bool = False  # another program on the host writes and renews it
    is_front: bool = False  # the front has one of its own, and renews it: there is none of ours
    needs_pin: bool = False  # no CA vouches for it, so that clients have to know its SHA-256

    @property
    def is_letsencrypt(self) -> bool:
        """Whether it is Let's Encrypt: its terms must be accepted, and it asks on port 80 only."""
        return bool(self.directory)


@dataclass(frozen=True, kw_only=True)
class ChallengeKind:
    """How an ACME server is shown that the names are ours."""

    by_zone: bool = False  # in the names' DNS zone, through certificate.dns; else on the http port
    stops: bool = False  # certificate.stop, the program that has that port, as long as an order takes


@dataclass(frozen=True, kw_only=True)
class DnsProvider:
    """A server of DNS zones, with an API that a plugin of certbot knows.

    `needs`, `may_have`: the keys of certificate.dns beside provider, secret and propagation_s.
    """

    needs: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PackagesWay:
    """The way in which packages reach a host."""

    is_brought: bool  # by the controller; else the host fetches them


@dataclass(frozen=True, kw_only=True)
class FirewallMode:
    """The treatment of ports that are not listed."""

    closes: bool  # else any other firewall may be in charge as well


_DIRECT = FrontProgram(program="relay", terminates_tls=False, answers_http=False, hides_relay=False)
FRONTS: Mapping[FrontName, FrontProgram] = {
    "nginx": FrontProgram(program="nginx", terminates_tls=True, answers_http=True, hides_relay=True),
    "nginx-stream": FrontProgram(
        program="nginx", terminates_tls=False, answers_http=True, hides_relay=True
    ),
    "direct": _DIRECT,
    "none": _DIRECT,
    "external": FrontProgram(
        program="your front", terminates_tls=False, answers_http=True, hides_relay=True, is_others=True
    ),
}
EXTERNALS: Mapping[ExternalName, ExternalProgram] = {
    "nginx-stream": ExternalProgram(tls=("passthrough",)),
    "haproxy": ExternalProgram(tls=("passthrough", "terminated")),
    "caddy": ExternalProgram(tls=("terminated",)),
    # It could pass TLS on, but not answer the captive-portal check by itself then.
    "traefik": ExternalProgram(tls=("terminated",)),
    "other": ExternalProgram(tls=("passthrough", "terminated")),
}
ENDS_TLS: Mapping[TlsName, bool] = {"passthrough": False, "terminated": True}
PROGRAMS: Mapping[ProgramName, RelayProgram] = {
    "python": RelayProgram(
        kept_by="it gets its sockets, its sandbox and its reloads from systemd",
        is_python=True, has_own_metrics=True, has_prober_keys=True, reads_proxy_header=True,
        tls_only_on_443=False,
    ),
    "derper": RelayProgram(
        kept_by="it is a program for the host's architecture, or an image for a container",
        is_python=False, has_own_metrics=False, has_prober_keys=False, reads_proxy_header=False,
        tls_only_on_443=True,
    ),
}
RUNNERS: Mapping[RunnerName, RelayRunner] = {
    "systemd": RelayRunner(in_container=False),
    "docker": RelayRunner(in_container=True),
    "supervisord": RelayRunner(in_container=False),
}
# The short form of each combination that works; the rules refuse every other.
FLAVOURS: Mapping[FlavourName, Combination] = {
    "python": Combination("python", "systemd"),
    "docker": Combination("derper", "docker"),
    "native": Combination("derper", "systemd"),
    "supervisord": Combination("derper", "supervisord"),
}
# (count, seconds in which as many become possible again): certificates for the exact same names,
# and failed challenges of one name (https://letsencrypt.org/docs/rate-limits/ of 2025-06-12: token
# buckets of 5 that get one back every 34 hours, and every 12 minutes).
LETSENCRYPTS = {"issued": (5, 7 * 86400), "failed": (5, 3600)}
SOURCES: Mapping[SourceName, CertificateSource] = {
    "letsencrypt": CertificateSource(
        is_acme=True,
        directory="https://acme-v02.api.letsencrypt.org/directory",
        limits=LETSENCRYPTS,
    ),
    "letsencrypt-staging": CertificateSource(
        is_acme=True, directory="https://acme-staging-v02.api.letsencrypt.org/directory"
    ),
    "acme": CertificateSource(is_acme=True),
    "manual": CertificateSource(needs_files=True),
    "on-host": CertificateSource(is_on_host=True),
    "self-signed": CertificateSource(needs_pin=True),
    "front": CertificateSource(is_front=True),
}
# The sources that each word may stand for. `inventory.auto_source` takes the first that fits the
# rest of the site file, else the last.
CANDIDATES: Mapping[SourceWord, tuple[SourceName, ...]] = {
    "letsencrypt": ("letsencrypt",),
    "letsencrypt-staging": ("letsencrypt-staging",),
    "acme": ("acme",),
    "manual": ("manual",),
    "on-host": ("on-host",),
    "self-signed": ("self-signed",),
    "front": ("front",),
    "auto": ("manual", "on-host", "front", "acme", "letsencrypt", "self-signed"),
}
SHORT_LIVED = "shortlived"
"""The profile of certificates for addresses, which live for 160 hours (Let's Encrypt's name)."""
ADMISSIONS: Mapping[AdmissionName, AdmissionRule] = {
    "headscale": AdmissionRule(url="headscale"),
    "url": AdmissionRule(url="relay", keys=("verify_client_url",), needs_key=True),
    "tailscaled": AdmissionRule(in_container=False, keys=("tailscaled",)),
    "keys": AdmissionRule(by_derper=False, keys=("keys", "keys_file"), needs_key=True),
    "open": AdmissionRule(verifies=False, keys=("open",)),
}
CHALLENGES: Mapping[ChallengeName, ChallengeKind] = {
    "http": ChallengeKind(),
    "dns": ChallengeKind(by_zone=True),
    "standalone": ChallengeKind(stops=True),
}
DNS_PROVIDERS: Mapping[DnsProviderName, DnsProvider] = {
    "rfc2136": DnsProvider(needs=("server", "key_name"), may_have=("port", "algorithm")),
    "cloudflare": DnsProvider(),
    "route53": DnsProvider(needs=("access_key",)),
    "aliyun": DnsProvider(needs=("access_key",)),
    "tencent": DnsProvider(needs=("access_key",)),
}
SHIPS_CERTBOT: Mapping[CertbotName, bool] = {"shipped": True, "distribution": False}
DOCKERS_OWN: Mapping[DockerName, bool] = {"distribution": False, "docker": True}
PACKAGES_FROM: Mapping[PackagesFromName, PackagesWay] = {
    "host": PackagesWay(is_brought=False),
    "controller": PackagesWay(is_brought=True),
}
FIREWALLS: Mapping[FirewallModeName, FirewallMode] = {
    "enforce": FirewallMode(closes=True),
    "ufw": FirewallMode(closes=True),
    "firewalld": FirewallMode(closes=True),
    "auto": FirewallMode(closes=True),
    "off": FirewallMode(closes=False),
}


def front_of(host: Host) -> FrontProgram:
    """Return what the host's front implies."""
    front = FRONTS[host.front]
    if front.is_others and host.external:
        return replace(front, terminates_tls=ENDS_TLS[host.external.tls])
    return front


def external_of(external: External) -> ExternalProgram:
    """Return what the kind of an operator's own front implies."""
    return EXTERNALS[external.kind]


def combination_of_flavour(host: Host) -> Combination:
    """Return the program and runner for which the host's flavour is short."""
    return FLAVOURS[host.flavour]


def program_of(host: Host) -> RelayProgram:
    """Return the properties of the host's relay program."""
    return PROGRAMS[host.program]


def runner_of(host: Host) -> RelayRunner:
    """Return the properties of the keeper of the host's relay."""
    return RUNNERS[host.runner]


def combination_of(host: Host) -> Combination:
    """Return the host's program and runner."""
    return Combination(host.program, host.runner)


def flavour_name(host: Host) -> FlavourName:
    """Return the short form of the host's program and runner, whichever form the site file has."""
    return next(name for name, combination in FLAVOURS.items() if combination == combination_of(host))


def admission_of(host: Host) -> AdmissionRule | None:
    """Return what the host's word of admission implies; None where shorter keys imply the word."""
    return ADMISSIONS[host.relay.admission] if host.relay.admission else None


def candidates_of(host: Host) -> tuple[SourceName, ...]:
    """Return the sources that the host's word may stand for, in the order of preference."""
    return CANDIDATES[host.certificate.source]


def source_of(host: Host) -> CertificateSource:
    """Return what the source of the host's certificate implies."""
    return SOURCES[host.source]


def challenge_of(host: Host) -> ChallengeKind:
    """Return what the challenge of the host's orders implies."""
    return CHALLENGES[host.certificate.challenge]


def provider_of(dns: DnsZone) -> DnsProvider:
    """Return what the provider of a DNS zone implies."""
    return DNS_PROVIDERS[dns.provider]


def ships_certbot(host: Host) -> bool:
    """Whether the controller brings the host's certbot; else it is the distribution's."""
    return SHIPS_CERTBOT[host.certificate.certbot]


def takes_dockers_own(host: Host) -> bool:
    """Whether the host gets Docker's own packages; else they are the distribution's."""
    return DOCKERS_OWN[host.docker.packages]


def packages_of(host: Host) -> PackagesWay:
    """Return what the way of the host's packages implies."""
    return PACKAGES_FROM[host.packages.source]


def firewall_of(host: Host) -> FirewallMode:
    """Return what the host's firewall mode implies."""
    return FIREWALLS[host.firewall.mode]


def answers_http(host: Host) -> bool:
    """Whether something always answers on the http port: a front, or an unfronted relay.

    With an ACME certificate an unfronted relay leaves the port to certbot.
    """
    return front_of(host).answers_http or not source_of(host).is_acme
