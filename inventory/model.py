"""The site: its hosts and their control server. Frozen data, no I/O.

A site file is YAML. Every host takes the keys of `defaults` that it does not set itself. Unknown
keys are refused. Secrets are references (`env:NAME`, `file:PATH`, `cmd:COMMAND`), see
`inventory.secrets`. Editors show the descriptions (inventory/schema.json), and refusals use a
pattern's words.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from inventory.choices import (
    ControlName,
    FirewallModeName,
    FlavourName,
    FrontName,
    ProgramName,
    RunnerName,
    SourceName,
    combination_of_flavour,
)
from inventory.secrets import SecretRef


def _text(pattern: str, words: str, **more: Any) -> Any:
    """Return a field for text of this form.

    `words` complete the sentence "… is not". Editors know the keyword `patternErrorMessage`, too.
    """
    return Field(pattern=pattern, json_schema_extra={"patternErrorMessage": words}, **more)


def _beside_the_site(path: str, info: ValidationInfo) -> str:
    base = (info.context or {}).get("base")
    if not base:
        return path
    return str(Path(base) / os.path.expanduser(path))  # noqa: PTH111 - Path's own may raise


def _authority(text: str) -> str:
    """Return the text, which has to be `[user@]host[:port]`. Raises ValueError if it is not."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port == 0:
        raise ValueError(text)
    return text


def _leads_somewhere(url: str) -> str:
    _authority(urlsplit(url).netloc)
    if "@" in urlsplit(url).netloc:
        raise PydanticCustomError(
            "login_in_url",
            "a URL has no user and password here: they would be on the command line, in files that all "
            "may read and in diffs. Let the server know its callers by address, or use a secret",
        )
    return url


def jump_hosts(text: str) -> str:
    """Return the jump hosts, each `[user@]host[:port]`, with commas between and without spaces.

    Raises ValueError if one of them has another form.
    """
    return ",".join(_authority(word.strip()) for word in text.split(","))


_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

Port = Annotated[int, Field(ge=1, le=65535)]
# A path on the controller; absolute once loaded.
LocalPath = Annotated[str, Field(min_length=1), AfterValidator(_beside_the_site)]
HostPath = Annotated[str, _text(r"^/[^\x00]*$", "an absolute path")]
HostName = Annotated[
    str,
    _text(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "a name of letters, digits, dots, underscores and hyphens"
    ),
]
Domain = Annotated[
    str,
    _text(
        rf"^({_LABEL}\.)+{_LABEL}$",
        "a host name: lower case, with a dot, without scheme, port or path; one with other letters as xn--…",
        max_length=253,
    ),
]
Url = Annotated[
    str,
    _text(r"^https?://[^/\s]+(/\S*)?$", "a URL, as https://name/path"),
    AfterValidator(_leads_somewhere),
]
Jump = Annotated[
    str,
    _text(r"^[^\s/]+(\s*,\s*[^\s/]+)*$", "jump hosts, as user@host:port with commas between"),
    AfterValidator(jump_hosts),
]
OpenPort = Annotated[
    str,
    _text(
        r"^([0-9]{1,5}(-[0-9]{1,5})?/(tcp|udp)|[0-9]{1,3}/ip)$", "a port, as 8443/tcp or 60000-61000/udp"
    ),
]
Mail = Annotated[str, _text(r"^[^@\s]+@[^@\s]+$", "a mail address")]
Sha256 = Annotated[str, _text(r"^[0-9a-f]{64}$", "64 lower-case hex digits")]
ImageRef = Annotated[
    str,
    _text(
        r"^[^-\s\x00-\x1f\x7f]\S*@sha256:[0-9a-f]{64}$",
        "an image with its digest, name@sha256:…: a tag can change under you"
    ),
]
Address = Annotated[str, _text(r"^[^\s@/]+$", "a name or an address, without user, port or path")]


User = Annotated[str, _text(r"^[^-\s\x00-\x1f\x7f][^\s\x00-\x1f\x7f]*$", "the name of a user")]


class Model(BaseModel):
    """A frozen part of the site that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


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
    python: str = Field("python3", description="Python 3.6 or newer on the host")


class Region(Model):
    """A DERP region; ids 900 to 999 are reserved for private regions (tailcfg.DERPRegion)."""

    id: int = Field(ge=900, le=999)
    code: str = _text(
        r"^[a-z0-9][a-z0-9-]{0,31}$", "a region code: lower-case letters, digits and hyphens, 32 at most"
    )
    name: str = _text(
        r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$", "one line of text", min_length=1, max_length=64
    )
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)


class Ports(Model):
    """Ports of a relay host. `backend` is where the relay listens on loopback behind nginx."""

    https: Port = 443
    http: Port = 80
    stun: Port = Field(3478, description="UDP")
    backend: Port = 81
    metrics: Port | None = Field(
        None,
        description="loopback port of /metrics and /debug/, for every user of the host; "
        "without one they are on a socket for root",
    )


class Certificate(Model):
    """The source of the relay's certificate."""

    source: SourceName = "letsencrypt"
    server: Url | None = Field(None, description="ACME directory URL, with source: acme")
    ca: LocalPath | None = Field(
        None, description="path of the PEM bundle that the ACME server's own https is verified with"
    )
    contact: Mail | None = Field(
        None, description="mail address for the ACME account; none registers without"
    )
    agree_terms: bool = Field(
        False, description="true: the ACME server's terms of service are accepted in your name"
    )
    certbot: Literal["shipped", "distribution"] = "shipped"
    renewal: Literal["timer", "cron"] = "timer"
    fullchain: LocalPath | None = Field(
        None, description="path of the chain on the controller, with source: manual"
    )
    key: SecretRef | None = Field(None, description="the private key in PEM, with source: manual")
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


class Relay(Model):
    """The relay's program, its runner, and its clients. Derper's flags are in brackets."""

    program: ProgramName | None = Field(
        None, description="python: our relay; derper: Go's; default: as `flavour` says"
    )
    under: RunnerName | None = Field(
        None, description="the service manager that keeps it running; default: as `flavour` says"
    )
    verify_client_url: Url | None = Field(
        None, description="[-verify-client-url]; default: the site's headscale, if it has one"
    )
    verify_insecure: bool = Field(
        False, description="true: clients are asked about over http, so whoever is between admits anyone"
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


class Docker(Model):
    """For a relay under docker.

    Exactly one image source: a registry reference with digest, or an archive shipped from the
    controller.
    """

    image: ImageRef | None = Field(None, description="name@sha256:…, pulled by the host")
    archive: LocalPath | None = Field(
        None, description="path of a `docker save` or OCI archive on the controller, shipped to the host"
    )
    packages: Literal["distribution", "docker"] = "distribution"
    mirror: Url | None = Field(
        None,
        description="base URL of a mirror of Docker's packages, such as https://mirrors.aliyun.com/docker-ce",
    )
    registry_mirrors: tuple[Url, ...] = ()


_PUBLIC_ADDRESS = "public address; goes into the map, so that clients need no DNS"


class Host(Model):
    """A relay host. `name` is its key under `hosts`."""

    name: HostName
    domain: Domain = Field(
        description="the relay's name; with a pinned certificate it may be an IPv4 address"
    )
    region: Region
    ipv4: IPv4Address | None = Field(None, description=_PUBLIC_ADDRESS)
    ipv6: IPv6Address | None = Field(None, description=_PUBLIC_ADDRESS)
    ssh: Ssh = Ssh()
    ports: Ports = Ports()
    flavour: FlavourName = Field(
        "python", description="short form of relay: python under systemd; or docker, derper under docker"
    )
    front: FrontName = "nginx"
    certificate: Certificate = Certificate()
    firewall: Firewall = Firewall()
    relay: Relay = Relay()
    docker: Docker = Docker()

    @property
    def program(self) -> ProgramName:
        """Return the relay's program, whichever form the site file has."""
        return self.relay.program or combination_of_flavour(self).program

    @property
    def runner(self) -> RunnerName:
        """Return the relay's runner, whichever form the site file has."""
        return self.relay.under or combination_of_flavour(self).under


class Headscale(Model):
    """The headscale host, if it is ours to touch."""

    kind: ClassVar[ControlName] = "headscale"

    url: Annotated[str, AfterValidator(_leads_somewhere)] = _text(
        r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?$",
        "a URL without a path, as https://headscale.example.org",
        description="server_url, as clients use it",
    )
    ssh: Ssh = Field(Ssh(), description="address: default: the name in `url`")
    config: HostPath = "/etc/headscale/config.yaml"
    derp_map: HostPath = Field(
        "/etc/headscale/derp.yaml", description="the file under derp.paths that our regions are merged into"
    )
    unit: str = _text(
        r"^[A-Za-z0-9:_.\\@][A-Za-z0-9:_.\\@-]*\.service$",
        "a systemd unit, as headscale.service", default="headscale.service",
    )
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
    def verify_url(self) -> str:
        """Return the URL at which headscale answers whether a client may use a relay."""
        return f"{self.url.rstrip('/')}/verify"


class Paste(Model):
    """No control server that is ours to change: an operator pastes the map into it.

    This is not a section of the site file.
    """

    kind: ClassVar[ControlName] = "paste"
    url: ClassVar[str] = ""
    verify_url: ClassVar[str] = ""

    def hosts(self) -> Mapping[str, Ssh]:
        """Return no host."""
        return {}


class Derpmap(Model):
    """The map that `invoke derpmap` prints."""

    omit_default_regions: bool = Field(False, description="leave Tailscale's own relays out")


class Site(Model):
    """Everything in a site file.

    `path` is the file; relative paths in it are relative to its folder.
    """

    path: str
    hosts: dict[HostName, Host] = Field(min_length=1)
    headscale: Headscale | None = None
    derpmap: Derpmap = Derpmap()
    known_hosts: LocalPath = Field(
        description="the pinned host keys, in OpenSSH's format; default: known_hosts beside the site file"
    )

    @property
    def control(self) -> Headscale | Paste:
        """Return where clients get their map from. `kind` is its key in `control.servers`."""
        return self.headscale or Paste()
