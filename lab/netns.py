"""The lab's network: namespaces, a bridge, NATs, and the way out.

See `lab.topology` for the picture.

Nothing of it is on the machine's own interfaces, in its routes, its firewall or its sysctls: the
way out is slirp4netns, an ordinary process that opens ordinary sockets for the lab's connections.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from ipaddress import IPv4Network
from pathlib import Path
from urllib.parse import urlsplit

from lab.errors import LabError
from lab.process import Processes, execute, run, wait_for
from lab.topology import (
    ACME_AT,
    BRIDGE,
    DNS_AT,
    EVERY_HOST,
    INNER_NETWORK_6,
    INNER_NETWORKS,
    WAY_OUT_DEVICE,
    WAY_OUT_NETWORKS,
    HostSpec,
    SiteSpec,
    Topology,
    first_free,
    lab_id,
)

WAY_OUT = "way-out"
FOLDER = Path("/run/netns")
IN_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "slave")


def choose(root: Path, servers: list[str]) -> Topology:
    """Choose the names and addresses for a lab in this folder. Raises LabError.

    `servers` are URLs that its hosts must reach outside.
    """
    taken = _networks_of_the_machine() + _resolvers() + [a for url in servers for a in _addresses_of(url)]
    network, way_out = first_free(INNER_NETWORKS, taken), first_free(WAY_OUT_NETWORKS, taken)
    if network is None or way_out is None:
        wanted = ", ".join(map(str, INNER_NETWORKS if network is None else WAY_OUT_NETWORKS))
        raise LabError(
            "no address range is free for the lab",
            why=f"this machine uses addresses in each of {wanted}",
            next="add a free range to lab/topology.py",
        )
    return Topology(lab_id(root), network, way_out)


def nowhere(root: Path) -> Topology:
    """Return names without addresses: enough to find the remains of a lab in this folder whose
    state file is lost."""
    return Topology(lab_id(root), INNER_NETWORKS[0], WAY_OUT_NETWORKS[0])


def make(topology: Topology, processes: Processes) -> None:
    """Make the lab's own namespace with its bridge and the way out."""
    name = topology.namespace
    _make_namespace(name)
    run(["ip", "-n", name, "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"])
    for at in (DNS_AT, ACME_AT):
        _add_address(topology, at, name, BRIDGE)
        run(["ip", "-n", name, "address", "add", f"{INNER_NETWORK_6[at]}/64", "dev", BRIDGE, "nodad"])
    run(["ip", "-n", name, "link", "set", BRIDGE, "up"])
    _forward(name)
    out = [
        "slirp4netns",
        "--configure",
        "--mtu=65520",
        "--disable-host-loopback",
        f"--cidr={topology.way_out}",
        "--netns-type=path",
    ]
    processes.start(WAY_OUT, [*out, str(FOLDER / name), WAY_OUT_DEVICE])
    wait_for(
        lambda: "default" in run(["ip", "-n", name, "route"]), timeout_s=10,
        what="the lab's way out did not come up", why=lambda: processes.tail(WAY_OUT),
    )  # fmt: skip
    _nft(
        name,
        "table ip lab {\n  chain out { type nat hook postrouting priority srcnat; oifname "
        f"{WAY_OUT_DEVICE} masquerade; }}\n}}",
    )


def add_host(topology: Topology, spec: HostSpec) -> str:
    """Make the namespace of a host, its interface up and addressed; return its name."""
    name = topology.namespace_of(spec.name)
    _plug_in(topology, name, spec.name, spec.at)
    if six := topology.ipv6(spec.name):
        run(["ip", "-n", name, "address", "add", f"{six}/64", "dev", "eth0", "nodad"])
    run(["ip", "-n", name, "route", "add", "default", "via", str(topology.address(DNS_AT))])
    return name


def add_site(topology: Topology, spec: SiteSpec) -> str:
    """Make a site's namespace and its NAT's; return the site's.

    The NAT forwards to the lab's hosts and nowhere else.
    """
    nat, name = topology.namespace_of(spec.nat), topology.namespace_of(spec.name)
    _plug_in(topology, nat, spec.nat, spec.at)
    _make_namespace(name)
    run(["ip", "-n", nat, "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", name])
    for namespace, device, address in ((nat, "lan0", spec.lan[1]), (name, "eth0", spec.lan[2])):
        run(["ip", "-n", namespace, "address", "add", f"{address}/{spec.lan.prefixlen}", "dev", device])
        run(["ip", "-n", namespace, "link", "set", device, "up"])
    run(["ip", "-n", name, "route", "add", "default", "via", str(spec.lan[1])])
    _forward(nat)
    hosts = ", ".join(str(topology.ipv4(host)) for host in EVERY_HOST)
    _nft(
        nat,
        f"""table ip nat {{
  chain out {{ type nat hook postrouting priority srcnat; oifname eth0 masquerade; }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname lan0 ip daddr {{ {hosts} }} accept
    iifname lan0 reject with icmp type admin-prohibited
  }}
}}""",
    )
    return name


def remove(topology: Topology) -> None:
    """Delete the lab's namespaces with everything in them."""
    for name in namespaces():
        if name == topology.namespace or name.startswith(f"{topology.namespace}-"):
            run(["ip", "netns", "delete", name])


def namespaces() -> list[str]:
    """Return the machine's named network namespaces."""
    return sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else []


def inside(namespace: str, etc: Path) -> list[str]:
    """Return an argv prefix: run in this network namespace, with the files of `etc` in place of
    those in /etc."""
    script = 'for f in "$0"/*; do mount --bind "$f" "/etc/${f##*/}" || exit 125; done; exec "$@"'
    return [
        "nsenter", f"--net={FOLDER / namespace}", *IN_OWN_MOUNTS, "sh", "-c", script, str(etc),
    ]


def way_out_resolver(topology: Topology) -> str:
    """Return the address at which the machine's own resolver answers inside the lab."""
    return str(topology.way_out[3])


def _make_namespace(name: str) -> None:
    if name in namespaces():  # left by an attempt that failed
        run(["ip", "netns", "delete", name])
    run(["ip", "netns", "add", name])
    run(["ip", "-n", name, "link", "set", "lo", "up"])


def _plug_in(topology: Topology, name: str, part: str, at: int) -> None:
    """Make a namespace whose eth0 is on the bridge."""
    lab = topology.namespace
    _make_namespace(name)
    # The kernel removes the interfaces of a deleted namespace only after a while.
    execute(["ip", "-n", lab, "link", "delete", f"v-{part}"], check=False)
    run(["ip", "-n", lab, "link", "add", f"v-{part}", "type", "veth", "peer", "name", "eth0", "netns", name])
    run(["ip", "-n", lab, "link", "set", f"v-{part}", "master", BRIDGE, "up"])
    _add_address(topology, at, name, "eth0")
    run(["ip", "-n", name, "link", "set", "eth0", "up"])


def _add_address(topology: Topology, at: int, namespace: str, device: str) -> None:
    address = f"{topology.address(at)}/{topology.network.prefixlen}"
    run(["ip", "-n", namespace, "address", "add", address, "dev", device])


def _forward(namespace: str) -> None:
    run(["nsenter", f"--net={FOLDER / namespace}", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])


def _nft(namespace: str, rules: str) -> None:
    run(
        ["nsenter", f"--net={FOLDER / namespace}", "nft", "-f", "-"],
        input=rules,
        what="the lab's nftables rules were refused",
    )


def _networks_of_the_machine() -> list[IPv4Network]:
    routes = json.loads(run(["ip", "-4", "-json", "route", "show", "table", "all"]))
    networks = [ipaddress.ip_network(r["dst"], strict=False) for r in routes if r["dst"] != "default"]
    return [n for n in networks if isinstance(n, IPv4Network)]


def _resolvers() -> list[IPv4Network]:
    words = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    return [IPv4Network(w[1]) for w in words if len(w) > 1 and w[0] == "nameserver" and ":" not in w[1]]


def _addresses_of(url: str) -> list[IPv4Network]:
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return [IPv4Network(entry[4][0]) for entry in found]
