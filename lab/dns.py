"""Names: a resolver for hosts, the controller and the ACME server; a plain file for the client sites, which have no way out."""

from __future__ import annotations

import re
from pathlib import Path

from lab import netns
from lab.files import write_tree
from lab.process import Processes, run, wait_for
from lab.state import State
from lab.topology import DNS_AT, DOMAIN

NAME = "dns"
NSSWITCH = Path("/etc/nsswitch.conf")


def start(state: State, processes: Processes, folder: Path) -> None:
    """Start dnsmasq and lay out `controller/` and `site/`, which stand in for /etc there (`netns.inside`)."""
    topology = state.topology
    nsswitch = re.sub(r"(?m)^hosts:.*$", "hosts: files dns", NSSWITCH.read_text())
    resolver = topology.address(DNS_AT)
    write_tree(
        folder,
        {
            "names": topology.hosts_file(),
            "controller/resolv.conf": f"search {DOMAIN}\nnameserver {resolver}\n",
            "controller/nsswitch.conf": nsswitch,
            # No resolver: what is not of the lab is refused at once instead of after seconds.
            "site/resolv.conf": "nameserver 127.0.0.1\n",
            "site/nsswitch.conf": nsswitch,
            "site/hosts": f"127.0.0.1 localhost\n{topology.hosts_file()}",
        },
    )
    namespace = f"--net={netns.FOLDER / topology.namespace}"
    processes.start(
        NAME,
        [
            "nsenter", namespace, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--group=root", "--pid-file=",
            "--log-facility=-", "--no-resolv", f"--server={netns.way_out_resolver(topology)}", f"--local=/{DOMAIN}/", "--no-hosts",
            f"--addn-hosts={folder / 'names'}", "--bind-interfaces", f"--listen-address={resolver}", "--cache-size=1000",
        ],
    )  # fmt: skip
    listening = ["nsenter", namespace, "ss", "--numeric", "--listening", "--udp", "src", f"{resolver}:53"]
    wait_for(lambda: str(resolver) in run(listening), timeout_s=10, what="the lab's DNS did not come up", why=lambda: processes.tail(NAME))
