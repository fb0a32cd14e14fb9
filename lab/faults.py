"""Faults, each for the time of a `with` block.

They are made in the lab's own network: nothing on the host announces them.

A fault of a service is made on the host itself (`Lab.run_in`), a power cut with `LabHost.stop`, a
wrong name with `Dns.point`, an unreliable ACME server with `Acme.start(reliable=False)`, distance
with `lab.delay`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from lab import netns
from lab.lab import Lab
from lab.process import run
from lab.topology import WAY_OUT_DEVICE

_numbers = itertools.count()


@contextmanager
def unplugged(lab: Lab, host: str) -> Iterator[None]:
    """Pull the host's cable: nothing reaches it, connections hang."""
    link = ["ip", "-n", lab.topology.namespace, "link", "set", f"v-{host}"]
    run([*link, "down"])
    try:
        yield
    finally:
        run([*link, "up"])


@contextmanager
def blocked(lab: Lab, host: str, port: int, protocol: Literal["tcp", "udp"] = "tcp") -> Iterator[None]:
    """Drop packets to this port of the host, from the controller and the sites, as a provider's
    firewall does."""
    addresses = [f"ip daddr {lab.topology.ipv4(host)}"]
    if six := lab.topology.ipv6(host):
        addresses.append(f"ip6 daddr {six}")
    drop = "\n".join(f"    {address} {protocol} dport {port} drop" for address in addresses)
    chains = "\n".join(
        f"  chain {hook} {{\n    type filter hook {hook} priority 0;\n{drop}\n  }}"
        for hook in ("forward", "output")
    )
    with _table(lab, "bridge", chains):
        yield


@contextmanager
def offline(lab: Lab, host: str) -> Iterator[None]:
    """Cut the host off from package servers and everything else outside of the lab."""
    chain = f"""  chain forward {{
    type filter hook forward priority 0;
    ip saddr {lab.topology.ipv4(host)} oifname {WAY_OUT_DEVICE} reject
  }}"""
    with _table(lab, "ip", chain):
        yield


def hang_up(lab: Lab, host: str, port: int) -> int:
    """Reset the host's connections on this local port at once; return their number."""
    into = ["nsenter", f"--net={netns.FOLDER / lab.topology.namespace_of(host)}"]
    ended = run(
        [*into, "ss", "--kill", "--no-header", "--tcp", "state", "established", "sport", f"= :{port}"]
    )
    return len(ended.splitlines())


@contextmanager
def _table(lab: Lab, family: str, chains: str) -> Iterator[None]:
    into = ["nsenter", f"--net={netns.FOLDER / lab.topology.namespace}", "nft"]
    name = f"fault{next(_numbers)}"
    run([*into, "-f", "-"], input=f"table {family} {name} {{\n{chains}\n}}\n")
    try:
        yield
    finally:
        run([*into, "delete", "table", family, name])
