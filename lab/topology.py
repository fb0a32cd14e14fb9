"""The names and addresses of a lab. Pure data, no I/O.

Every lab has its network in its own namespaces, so all labs use the same inner addresses without
meeting. The whole machine sees only the names of the namespaces; they derive from the lab's folder.

    the machine ── slirp4netns ── dfl-ID ── bridge ─┬─ hk1, sg1, hs1
                    (way out)      │ DNS, ACME,     ├─ nat-a ── site-a
                                   │ controller     ├─ nat-b ── site-b
                                                    └─ nat-c ── site-c

Each host is a namespace with a systemd container, and each site one with a real tailscaled. The
NATs forward to the three hosts alone, so sites meet in a relay or nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Literal

SystemName = Literal["debian", "el9", "ubuntu"]

DOMAIN = "derp.lab"
BRIDGE = "br0"
WAY_OUT_DEVICE = "tap0"

# The first that overlaps none of the machine's own networks, resolvers and package servers is
# taken: a host inside a network of that address could not reach it.
INNER_NETWORKS = tuple(
    IPv4Network(n) for n in ("198.51.100.0/24", "198.18.100.0/24", "198.19.200.0/24", "10.213.77.0/24")
)
WAY_OUT_NETWORKS = tuple(
    IPv4Network(n) for n in ("10.0.2.0/24", "198.18.2.0/24", "198.19.2.0/24", "172.29.2.0/24")
)
INNER_NETWORK_6 = IPv6Network("2001:db8:51:100::/64")

# the last part of an address in the inner network; the controller is at DNS_AT too
DNS_AT, ACME_AT = 1, 2
# where lab.zone serves the answers to DNS challenges
ZONE_HOST, ZONE_PORT = "hs1", 5353


@dataclass(frozen=True)
class HostSpec:
    """A host to boot.

    `kind` decides what its bare system gets; a relay host gets nothing that a role installs.
    """

    name: str
    kind: Literal["relay", "headscale"]
    at: int
    suite: str = "bookworm"  # the release of Debian
    system: SystemName = "debian"  # in whose likeness it was made
    ipv6: bool = False
    region: tuple[int, str, str] | None = None  # id, code, name

    @property
    def domain(self) -> str:
        """Its DNS name."""
        return f"{self.name}.{DOMAIN}"


@dataclass(frozen=True)
class SiteSpec:
    """A network behind its own NAT, with one tailscale client in it."""

    name: str
    nat: str
    at: int
    lan: IPv4Network


HOSTS: Mapping[str, HostSpec] = {
    spec.name: spec
    for spec in (
        HostSpec("hk1", "relay", 11, ipv6=True, region=(901, "hk", "Hong Kong")),
        HostSpec("sg1", "relay", 12, suite="trixie", region=(902, "sg", "Singapore")),
        HostSpec("hs1", "headscale", 21),
    )
}
# Hosts of other distributions, and further ones of Debian, which a lab has only if it is asked for
# them by name.
OTHERS: Mapping[str, HostSpec] = {
    spec.name: spec
    for spec in (
        HostSpec("el1", "relay", 13, system="el9", region=(903, "tk", "Tokyo")),
        HostSpec("ub1", "relay", 14, suite="trixie", system="ubuntu", region=(904, "se", "Seoul")),
        HostSpec("fr1", "relay", 15, region=(905, "fr", "Frankfurt")),
        HostSpec("la1", "relay", 16, suite="trixie", region=(906, "la", "Los Angeles")),
    )
}
EVERY_HOST: Mapping[str, HostSpec] = {**HOSTS, **OTHERS}
SITES: Mapping[str, SiteSpec] = {
    f"site-{letter}": SiteSpec(
        f"site-{letter}", f"nat-{letter}", 31 + i, IPv4Network(f"192.168.{11 + i}.0/24")
    )
    for i, letter in enumerate("abc")
}
NETWORK, ACME = "network", "acme"
PARTS = (*HOSTS, ACME, *SITES)
EVERY_PART = (*EVERY_HOST, ACME, *SITES)


@dataclass(frozen=True)
class Topology:
    """The names and addresses of one lab. `id` is six hex digits of its folder's path."""

    id: str
    network: IPv4Network
    way_out: IPv4Network

    @property
    def namespace(self) -> str:
        """The lab's own network namespace: bridge, DNS, ACME server, and the controller when it
        works on this lab."""
        return f"dfl-{self.id}"

    def namespace_of(self, part: str) -> str:
        """Return the namespace of a host, a NAT or a site."""
        return f"{self.namespace}-{part}"

    def address(self, at: int) -> IPv4Address:
        """Return an address of the inner network."""
        return self.network[at]

    def ipv4(self, host: str) -> IPv4Address:
        """Return a host's address."""
        return self.network[EVERY_HOST[host].at]

    def ipv6(self, host: str) -> IPv6Address | None:
        """Return a host's IPv6 address, if it has one."""
        spec = EVERY_HOST[host]
        return INNER_NETWORK_6[spec.at] if spec.ipv6 else None

    def hosts_file(self) -> str:
        """Return every name of the lab, in the format of /etc/hosts."""
        lines = [
            f"{self.address(DNS_AT)} dns.{DOMAIN} controller.{DOMAIN}",
            f"{self.address(ACME_AT)} {ACME}.{DOMAIN}",
        ]
        for spec in EVERY_HOST.values():
            lines.append(f"{self.ipv4(spec.name)} {spec.domain}")
            if six := self.ipv6(spec.name):
                lines.append(f"{six} {spec.domain}")
        return "\n".join(lines) + "\n"


def lab_id(root: Path) -> str:
    """Return the id of the lab in this folder: the same folder, the same id."""
    return hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:6]


def first_free(candidates: Iterable[IPv4Network], taken: Iterable[IPv4Network]) -> IPv4Network | None:
    """Return the first candidate that overlaps no taken network; None if there is none."""
    used = list(taken)
    return next((c for c in candidates if not any(c.overlaps(u) for u in used)), None)
