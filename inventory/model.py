"""The site: its hosts and their control server. Frozen data, no I/O.

A site file is YAML. Every host takes the keys of `defaults` that it does not set itself. Unknown
keys are refused. Secrets are references (`env:NAME`, `file:PATH`, `cmd:COMMAND`), see
`inventory.secrets`. Editors show the descriptions (inventory/schema.json), and refusals use a
pattern's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from inventory.acme import Account, DnsZone
from inventory.auto_source import chosen_source
from inventory.choices import (
    AdmissionName,
    CertbotName,
    ChallengeName,
    ControlName,
    ExternalName,
    FirewallModeName,
    FlavourName,
    FrontName,
    ProgramName,
    RenewalName,
    RunnerName,
    SourceName,
    SourceWord,
    TlsName,
    combination_of_flavour,
)
from inventory.control_servers import ControlPart, Derpmap, MapFile, Paste, Tailscale
from inventory.docker import Docker
from inventory.metrics_access import MetricsAccess
from inventory.notify import Notify
from inventory.official import Official
from inventory.packages import PackageSupply
from inventory.part import Model
from inventory.rollout import RolloutPolicy
from inventory.secrets import SecretRef
from inventory.values import (
    Address,
    Domain,
    HostName,
    HostPath,
    Jump,
    LocalPath,
    Mail,
    NodeKey,
    OpenPort,
    Port,
    Program,
    Sha256,
    SocketPath,
    UnitName,
    Url,
    User,
    Wildcard,
    Word,
    leads_somewhere,
    text,
)


class Ssh(Model):
    """How to log in. Absent keys come from ~/.ssh/config and the agent, as with `ssh` itself."""

    address: Address | None = Field(
        None, description="name or address to connect to; default: the host's ipv4, then its domain"
    )
    port: Port | None = None
    user: User | None = None
    key: LocalPath | None = Field(None, description="path of a private key")
    key_passphrase: SecretRef | None = None
    password: SecretRef | None = None
    sudo_password: SecretRef | None = None
    jump: Jump | None = Field(
        None,
        description="user@host:port of a jump host, entered by key; several with commas; none: no jump host",
    )
    python: Program = Field("python3", description="Python 3.6 or newer on the host")


class Region(Model):
    """A DERP region; ids 900 to 999 are reserved for private regions (tailcfg.DERPRegion)."""

    id: int = Field(ge=900, le=999)
    code: str = text(
        r"^[a-z0-9][a-z0-9-]{0,31}$", "a region code: lower-case letters, digits and hyphens, 32 at most"
    )
    name: str = text(
        r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$", "one line of text", min_length=1, max_length=64
    )
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)


class Ports(Model):
    """Ports of a relay host. `backend` is where the relay listens on loopback behind a front."""

    https: Port = 443
    http: Port = 80
    stun: Port = Field(3478, description="UDP")
    backend: Port = 81
    metrics: Port | None = Field(
        None,
        description="port of /metrics and /debug/ on loopback, for every user of the host; "
        "without one they are on a socket for root",
    )
    challenge: Port = Field(8402, description="loopback port of certbot's answers, behind front: external")


class External(Model):
    """A front that you keep yourself. A deploy prints the fragment for its configuration."""

    kind: ExternalName
    tls: TlsName = Field("passthrough", description="terminated: by the front, which has the certificate")
    trusted: tuple[IPv4Network | IPv6Network, ...] = Field(
        (), description="addresses or CIDRs of proxies before that front, whose X-Forwarded-For is believed"
    )


class Certificate(Model):
    """The source of the relay's certificate."""

    source: SourceWord = Field(
        "letsencrypt", description="auto: the one that fits the other keys; a deploy says which one, and why"
    )
    server: Url | None = Field(None, description="ACME directory URL, with source: acme")
    ca: LocalPath | None = Field(
        None, description="path of the PEM bundle that the ACME server's own https is verified with"
    )
    names: tuple[Domain | Wildcard, ...] = Field(
        (), description="more names for the certificate; wildcards with challenge: dns"
    )
    profile: Word | None = Field(
        None,
        description="the ACME server's profile, such as shortlived; default: classic, if the server has it",
    )
    challenge: ChallengeName = Field(
        "http", description="http: on the host; standalone: there, while `stop` is stopped; dns: in the zone"
    )
    dns: DnsZone | None = Field(None, description="access to that zone, with challenge: dns")
    stop: UnitName | None = Field(
        None, description="the service that has the http port, stopped for orders by challenge: standalone"
    )
    contact: Mail | None = Field(
        None, description="mail address for the ACME account; none registers without"
    )
    account: Account | None = Field(
        None, description="for an ACME server that asks for an external account, as ZeroSSL and Google do"
    )
    agree_terms: bool = Field(
        False, description="true: the ACME server's terms of service are accepted in your name"
    )
    certbot: CertbotName = "shipped"
    renewal: RenewalName = "timer"
    fullchain: LocalPath | None = Field(
        None, description="path of the chain on the controller, with source: manual"
    )
    key: SecretRef | None = Field(None, description="the private key in PEM, with source: manual")
    fullchain_path: HostPath | None = Field(
        None, description="path of the chain on the host, with source: on-host"
    )
    key_path: HostPath | None = Field(None, description="path of its key on the host, with source: on-host")
    pin: Sha256 | None = Field(
        None,
        description=(
            "SHA-256 of the certificate (DER): clients accept that one certificate and no other, "
            "regardless of its issuer"
        ),
    )


class Firewall(Model):
    """`enforce` closes what is not listed, by a table of its own.

    `ufw` and `firewalld` open the ports in that firewall, which has to be active. `auto` uses the
    one that is active, else a table of its own. `off` touches nothing.
    """

    mode: FirewallModeName = "auto"
    allow: tuple[OpenPort, ...] = Field(
        (),
        description=(
            "more open ports, such as 8443/tcp or 51820/udp, and protocols, such as 47/ip for GRE"
        ),
    )
    revert_after_s: Annotated[int, Field(ge=10, le=600)] = 30


class Tailscaled(Model):
    """A tailscaled of the relay's host, which the relay asks who is in its tailnet."""

    manage: bool = Field(
        False,
        description="true: one of our own is installed, and joins; else the one that is there is asked, "
        "and never changed",
    )
    auth_key: SecretRef | None = Field(
        None, description="with manage: the key that joins the tailnet; it is read until that is done"
    )
    login_server: Url | None = Field(
        None, description="with manage; default: the site's headscale, else Tailscale's own"
    )
    socket: SocketPath = Field("/run/tailscale/tailscaled.sock", description="[-socket]")


class Relay(Model):
    """The relay's program, its runner, and its clients. Derper's flags are in brackets."""

    program: ProgramName | None = Field(
        None, description="python: our relay; derper: Go's; default: as `flavour` says"
    )
    under: RunnerName | None = Field(
        None, description="the service manager that keeps it running; default: as `flavour` says"
    )
    admission: AdmissionName | None = Field(
        None,
        description=(
            "who may use it: the nodes that headscale, verify_client_url or tailscaled knows; those in keys; "
            "or anyone; default: url with verify_client_url, else headscale if the site has one, else open"
        ),
    )
    tailscaled: Tailscaled = Tailscaled()
    keys: tuple[NodeKey, ...] = Field((), description="[-allow-file] with admission: keys")
    keys_file: LocalPath | None = Field(
        None, description="path of a file with a node key a line on the controller, instead of keys"
    )
    verify_client_url: Url | None = Field(
        None, description="[-verify-client-url]; default: the site's headscale, if it has one"
    )
    verify_insecure: bool = Field(
        False, description="true: clients are asked about over http, and anyone on the way can admit anyone"
    )
    mesh_key: SecretRef | None = Field(
        None, description="[-mesh-psk-file] of a relay with managed: false; it lets the proof's clients in"
    )
    verify_fail_open: bool = Field(False, description="[-verify-client-url-fail-open]")
    open: bool = Field(
        False, description="anyone may use the relay: it does not ask the site's headscale"
    )
    connections_per_address: int = Field(
        1024,
        ge=32,
        le=65535,
        description=(
            "the most connections of one address (IPv6: one /64); more for many clients behind one NAT"
        ),
    )


_PUBLIC_ADDRESS = "public address; goes into the map, so that clients need no DNS"


class Host(Model):
    """A relay host. `name` is its key under `hosts`."""

    name: HostName
    domain: Domain = Field(
        description="the relay's name; it may be an IPv4 address, with a pinned or a short-lived certificate"
    )
    region: Region
    ipv4: IPv4Address | None = Field(None, description=_PUBLIC_ADDRESS)
    ipv6: IPv6Address | None = Field(None, description=_PUBLIC_ADDRESS)
    managed: bool = Field(
        True, description="false: somebody else runs it; it is proved, registered and watched, never changed"
    )
    ssh: Ssh = Ssh()
    ports: Ports = Ports()
    metrics: MetricsAccess = MetricsAccess()
    flavour: FlavourName = Field(
        "python",
        description="short form of relay: python under systemd; or derper under docker (docker), systemd "
        "(native) or supervisord (supervisord)",
    )
    front: FrontName = Field("nginx", description="direct or none: the relay itself; nginx-stream: by name")
    external: External | None = None
    certificate: Certificate = Certificate()
    firewall: Firewall = Firewall()
    relay: Relay = Relay()
    docker: Docker = Docker()
    packages: PackageSupply = PackageSupply()

    @property
    def more_names(self) -> tuple[str, ...]:
        """Return the names beside `domain` that the host answers to. It claims no wildcards."""
        return tuple(name for name in self.certificate.names if not name.startswith("*"))

    @property
    def is_address(self) -> bool:
        """Whether its domain is an IPv4 address, and no name."""
        return self.domain.rpartition(".")[2].isdigit()

    @property
    def source(self) -> SourceName:
        """Return the source of its certificate, also where the site file leaves it to us."""
        return chosen_source(self).source

    @property
    def program(self) -> ProgramName:
        """Return the relay's program, whichever form the site file has."""
        return self.relay.program or combination_of_flavour(self).program

    @property
    def runner(self) -> RunnerName:
        """Return the relay's runner, whichever form the site file has."""
        return self.relay.under or combination_of_flavour(self).under


class Headscale(ControlPart):
    """The headscale host, if it is ours to touch."""

    kind: ClassVar[ControlName] = "headscale"
    admission: ClassVar[AdmissionName] = "headscale"  # unless a relay says otherwise

    url: Annotated[str, AfterValidator(leads_somewhere)] = text(
        r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$",
        "a URL without a path, as https://headscale.example.org",
        description="server_url, as clients use it",
    )
    ssh: Ssh = Field(Ssh(), description="address: default: the name in `url`")
    config: HostPath = "/etc/headscale/config.yaml"
    derp_map: HostPath = Field(
        "/etc/headscale/derp.yaml", description="the file under derp.paths that our regions are merged into"
    )
    map_file: LocalPath | None = Field(
        None, description="path of a map file here, merged into in place of the one on the headscale host"
    )
    unit: UnitName = "headscale.service"
    metrics: Url = Field(
        "http://127.0.0.1:9090",
        description="where /debug/derp answers on that host; default: as in its config.yaml",
    )
    health: Url = Field(
        "http://127.0.0.1:8080/health",
        description="the /health address as seen on that host; default: as in its config.yaml",
    )

    def hosts(self) -> Mapping[str, Ssh]:
        """Return how to log in to the hosts of the control server, by their names here."""
        return {self.kind: self.ssh}

    @property
    def place(self) -> str:
        """Return where the map is, in words."""
        return self.url

    @property
    def verify_url(self) -> str:
        """Return the URL at which headscale answers whether a client may use a relay."""
        return f"{self.url.rstrip('/')}/verify"


class Site(Model):
    """Everything in a site file, `path`. Relative paths in it are relative to its folder."""

    path: str
    official: Official | None = None  # the choice in the file beside it
    hosts: dict[HostName, Host] = Field(min_length=1)
    headscale: Headscale | None = None
    tailscale: Tailscale | None = None
    derpmap: Derpmap = Derpmap()
    rollout: RolloutPolicy = RolloutPolicy()
    notify: Notify | None = None
    prover: SecretRef | None = Field(
        None, description="the text of a prover.json, for several controllers; default: the one in .runs"
    )
    known_hosts: LocalPath = Field(
        description="the pinned host keys, in OpenSSH's format; default: known_hosts beside the site file"
    )

    @property
    def control(self) -> Headscale | MapFile | Tailscale | Paste:
        """Return where clients get their map from. `kind` is its key in `control.servers`."""
        found = self.headscale
        if found is not None and found.map_file is not None:
            return MapFile(path=found.map_file, url=found.url, verify_url=found.verify_url)
        return found or self.tailscale or Paste()
