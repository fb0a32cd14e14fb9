"""Names: a resolver for hosts, controller and ACME server, and a plain file for the client sites.

The sites have no way out to a resolver.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from lab import netns
from lab.files import write_tree
from lab.process import Processes, run, wait_for
from lab.topology import DNS_AT, DOMAIN, EVERY_HOST, ZONE_HOST, ZONE_PORT, Topology

NAME = "dns"
NSSWITCH = Path("/etc/nsswitch.conf")


@dataclass(frozen=True)
class Dns:
    """dnsmasq in the lab's own namespace.

    `folder` also holds `controller/` and `site/`, whose files replace those of /etc there
    (`netns.inside`).
    """

    topology: Topology
    processes: Processes
    folder: Path

    def start(self) -> None:
        """Start it, and write the files by which controller and sites resolve names."""
        topology = self.topology
        resolver = topology.address(DNS_AT)
        nsswitch = re.sub(r"(?m)^hosts:.*$", "hosts: files dns", NSSWITCH.read_text())
        write_tree(
            self.folder,
            {
                "controller/resolv.conf": f"search {DOMAIN}\nnameserver {resolver}\n",
                "controller/nsswitch.conf": nsswitch,
                # No resolver: names outside of the lab are refused at once instead of after
                # seconds.
                "site/resolv.conf": "nameserver 127.0.0.1\n",
                "site/nsswitch.conf": nsswitch,
            },
        )
        self._write(topology.hosts_file())
        domains = [spec.domain for spec in EVERY_HOST.values()]
        zone = f"{topology.ipv4(ZONE_HOST)}#{ZONE_PORT}"
        namespace = f"--net={netns.FOLDER / topology.namespace}"
        self.processes.start(
            NAME,
            [
                "nsenter", namespace, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                "--user=root", "--group=root", "--pid-file=", "--log-facility=-", "--no-resolv",
                f"--server={netns.way_out_resolver(topology)}", f"--local=/{DOMAIN}/", "--no-hosts",
                *(f"--server=/_acme-challenge.{name}/{zone}" for name in (DOMAIN, *domains)),
                f"--addn-hosts={self._names}", "--bind-interfaces", f"--listen-address={resolver}",
                "--cache-size=1000",
            ],
        )  # fmt: skip
        listening = ["ss", "--numeric", "--listening", "--udp", "src", f"{resolver}:53"]
        wait_for(
            lambda: str(resolver) in run(["nsenter", namespace, *listening]),
            timeout_s=10,
            what="the lab's DNS did not come up",
            why=lambda: self.processes.tail(NAME),
        )

    def point(self, name: str, *addresses: IPv4Address | IPv6Address) -> None:
        """Let `name` mean only these addresses from now on; without any it does not exist."""
        kept = [line for line in self._names.read_text().splitlines() if name not in line.split()[1:]]
        self._write("\n".join([*kept, *(f"{address} {name}" for address in addresses)]) + "\n")
        self._reload()

    def restore(self) -> None:
        """Restore the names that the lab began with."""
        self._write(self.topology.hosts_file())
        self._reload()

    @property
    def _names(self) -> Path:
        return self.folder / "names"

    def _write(self, names: str) -> None:
        """Write the names in place: programs on the sites have them mounted over /etc/hosts."""
        write_tree(self.folder, {"names": names, "site/hosts": f"127.0.0.1 localhost\n{names}"})

    def _reload(self) -> None:
        """Wait until dnsmasq has read the names: it logs that."""
        if (pid := self.processes.pid(NAME)) is None:
            return
        before = self._readings()
        os.kill(pid, signal.SIGHUP)
        wait_for(
            lambda: self._readings() > before,
            timeout_s=10, what="the lab's DNS did not read its names", why=lambda: self.processes.tail(NAME),
        )  # fmt: skip

    def _readings(self) -> int:
        return self.processes.log(NAME).read_text().count(f"read {self._names}")
