"""The site: who the hosts are. Frozen data, no I/O.

A site file is YAML. Every host takes the keys of `defaults` that it does not set itself. Unknown keys are refused.
Secrets are references (`env:NAME`, `file:PATH`, `cmd:COMMAND`), see `inventory.secrets`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from inventory.secrets import SecretRef

Port = Annotated[int, Field(ge=1, le=65535)]


class Model(BaseModel):
    """A frozen part of the site that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Ssh(Model):
    """How to log in. What is absent comes from ~/.ssh/config and the agent, as with `ssh` itself."""

    address: str | None = Field(None, description="name or address to connect to; default: the host's ipv4, then its domain")
    port: Port | None = None
    user: str | None = None
    key: str | None = Field(None, description="path of a private key")
    key_passphrase: SecretRef | None = None
    password: SecretRef | None = None
    sudo_password: SecretRef | None = None
    jump: str | None = Field(None, description="user@host:port of a jump host")
    python: str = Field("python3", description="Python 3.6 or newer on the host")


class Region(Model):
    """A DERP region; ids 900 to 999 are set aside for regions of one's own (tailcfg.DERPRegion)."""

    id: int = Field(ge=900, le=999)
    code: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    name: str = Field(min_length=1, max_length=64)
    latitude: float | None = Field(None, ge=-90, le=90)
    longitude: float | None = Field(None, ge=-180, le=180)


class Ports(Model):
    """Ports of a relay host. `backend` is where the relay listens on loopback behind nginx."""

    https: Port = 443
    http: Port = 80
    stun: Port = 3478
    backend: Port = 81
    metrics: Port = Field(9411, description="loopback port of /metrics and /debug/")


class Certificate(Model):
    """Where the relay's certificate comes from."""

    source: Literal["letsencrypt", "letsencrypt-staging", "acme", "manual", "self-signed"] = "letsencrypt"
    server: str | None = Field(None, description="ACME directory URL, with source: acme")
    ca: str | None = Field(None, description="path of the PEM bundle that the ACME server's own https is verified with")
    contact: str | None = Field(None, description="mail address for the ACME account; none registers without")
    agree_terms: bool = False
    certbot: Literal["shipped", "distribution"] = "shipped"
    renewal: Literal["timer", "cron"] = "timer"
    fullchain: str | None = Field(None, description="path of the chain on the controller, with source: manual")
    key: SecretRef | None = Field(None, description="the private key in PEM, with source: manual")


class Firewall(Model):
    """`enforce` closes what is not listed; `off` touches nothing."""

    mode: Literal["enforce", "off"] = "enforce"
    allow: tuple[str, ...] = Field((), description="more open ports, such as 8443/tcp or 51820/udp")
    revert_after_s: Annotated[int, Field(ge=10, le=600)] = 30


class Relay(Model):
    """Who may use the relay. Derper's flags of the same meaning stand in brackets."""

    verify_client_url: str | None = Field(None, description="[-verify-client-url]; default: the site's headscale, if it has one")
    verify_fail_open: bool = Field(False, description="[-verify-client-url-fail-open]")
    open: bool = Field(False, description="anyone may use the relay: ask nobody, even with a headscale in the site")


class Docker(Model):
    """The docker flavour. Exactly one image source: a registry reference with digest, or an archive shipped from the controller."""

    image: str | None = Field(None, description="name@sha256:…, pulled by the host")
    archive: str | None = Field(None, description="path of a `docker save` or OCI archive on the controller, shipped to the host")
    packages: Literal["distribution", "docker"] = "distribution"
    mirror: str | None = Field(None, description="base URL of a mirror of Docker's packages, such as https://mirrors.aliyun.com/docker-ce")
    registry_mirrors: tuple[str, ...] = ()


class Host(Model):
    """A relay host. `name` is its key under `hosts`."""

    name: str
    domain: str
    region: Region
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    ssh: Ssh = Ssh()
    ports: Ports = Ports()
    flavour: Literal["python", "docker"] = "python"
    front: Literal["nginx", "none"] = "nginx"
    certificate: Certificate = Certificate()
    firewall: Firewall = Firewall()
    relay: Relay = Relay()
    docker: Docker = Docker()


class Headscale(Model):
    """The headscale host, if it is ours to touch."""

    url: str = Field(description="server_url, as clients use it")
    ssh: Ssh
    config: str = "/etc/headscale/config.yaml"
    derp_map: str = Field("/etc/headscale/derp.yaml", description="the file under derp.paths that our regions are merged into")
    unit: str = "headscale.service"
    metrics: str = Field("http://127.0.0.1:9090", description="where /debug/derp answers on that host")
    health: str = Field("http://127.0.0.1:8080/health", description="the /health address as seen on that host")


class Derpmap(Model):
    """What `invoke derpmap` prints."""

    omit_default_regions: bool = False


class Site(Model):
    """Everything that a site file says. `path` is the file; relative paths in it are relative to its folder."""

    path: str
    hosts: dict[str, Host]
    headscale: Headscale | None = None
    derpmap: Derpmap = Derpmap()
    known_hosts: str = Field(description="absolute path of the pinned host keys, OpenSSH's format")
