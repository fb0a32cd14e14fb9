"""The ACME server: Pebble, a real one that issues certificates after a real HTTP-01
validation.

It makes a new root at every start. The CA bundle is then written again, and earlier certificates
are no longer trusted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import netns
from lab.certificates import machine_bundle, make_server_certificate
from lab.files import write_tree
from lab.process import Processes, run, wait_for
from lab.topology import ACME, ACME_AT, DNS_AT, DOMAIN, Topology

PORT, MANAGEMENT_PORT = 14000, 15000
# Let's Encrypt's, by profile in seconds. A client that asks for none gets one of them at random.
LIFETIMES_S = {"classic": 90 * 86400}
SHORT_LIVED_S = {"shortlived": 160 * 3600}
NO_ACCOUNTS: Mapping[str, str] = {}
RELIABLE = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}


def profiles(lifetimes_s: Mapping[str, int]) -> dict[str, Any]:
    """Return the section of Pebble's settings with these profiles."""
    return {name: {"description": name, "validityPeriod": life} for name, life in lifetimes_s.items()}


@dataclass(frozen=True)
class Acme:
    """Pebble in the lab's own namespace.

    `folder` holds its files. The roots that clients trust are written to `bundle`, `other_root`
    among them. `programs` has the built Pebble.
    """

    topology: Topology
    processes: Processes
    folder: Path
    bundle: Path
    other_root: Path
    programs: Path

    @property
    def directory_url(self) -> str:
        """The URL for ACME clients."""
        return f"https://{ACME}.{DOMAIN}:{PORT}/dir"

    @property
    def ca(self) -> Path:
        """The root that verifies the ACME server's own https."""
        return self.folder / "ca.pem"

    def start(
        self,
        *,
        reliable: bool = True,
        lifetimes_s: Mapping[str, int] = LIFETIMES_S,
        accounts: Mapping[str, str] = NO_ACCOUNTS,
    ) -> None:
        """Start it, as a new server: one that runs already is ended, with its accounts, orders and
        root.

        Certificates live as long as their profile in `lifetimes_s` says. Not `reliable`:
        validations take seconds, some good nonces are refused, and some earlier validations are
        reused, to test a client's retries. `accounts`: the external accounts without which it takes
        no client: key id to HMAC key.
        """
        topology, address = self.topology, self.topology.address(ACME_AT)
        authority, certificate, key = make_server_certificate(f"{ACME}.{DOMAIN}", address)
        settings = {
            "listenAddress": f"{address}:{PORT}",
            "managementListenAddress": f"{address}:{MANAGEMENT_PORT}",
            "certificate": str(self.folder / "server.pem"),
            "privateKey": str(self.folder / "server.key"),
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(accounts),
            "externalAccountMACKeys": dict(accounts),
            "keyAlgorithm": "ecdsa",
            "profiles": profiles(lifetimes_s),
        }
        write_tree(
            self.folder,
            {
                "ca.pem": authority,
                "server.pem": certificate,
                "pebble.json": json.dumps({"pebble": settings}, indent=1),
            },
        )
        write_tree(self.folder, {"server.key": key}, mode=0o600)
        self.processes.start(
            ACME,
            [
                "nsenter", f"--net={netns.FOLDER / topology.namespace}",
                str(self.programs / "pebble"), "-config", str(self.folder / "pebble.json"),
                "-dnsserver", f"{topology.address(DNS_AT)}:53",
            ],
            environment={**os.environ, **(RELIABLE if reliable else {})},
        )  # fmt: skip
        root = wait_for(
            self._root,
            timeout_s=10,
            what="the ACME server did not come up",
            why=lambda: self.processes.tail(ACME),
        )
        self.bundle.write_text(machine_bundle() + self.other_root.read_text() + root)

    def _root(self) -> str | None:
        address = self.topology.address(ACME_AT)
        url = f"https://{address}:{MANAGEMENT_PORT}/roots/0"
        fetch = f"curl --silent --fail --max-time 2 --cacert {self.ca} {url} || true"
        pem = run(["nsenter", f"--net={netns.FOLDER / self.topology.namespace}", "sh", "-c", fetch])
        return pem if "BEGIN CERTIFICATE" in pem else None
