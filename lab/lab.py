"""A lab that is up: its hosts, its services, its client sites."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from artefacts import go
from lab import netns
from lab.acme import Acme
from lab.client import LabClient
from lab.dns import NAME as DNS
from lab.dns import Dns
from lab.errors import LabError
from lab.headscale import LabHeadscale
from lab.host import LabHost
from lab.process import Processes, execute
from lab.programs import PEBBLE, TAILNET
from lab.state import State
from lab.topology import EVERY_HOST, NETWORK, SITES, Topology

CONTROLLER = "controller"


@dataclass(frozen=True)
class Lab:
    """The lab in the folder `state.root`; `cache` holds the files that labs share.

    Made by `up` and `load`.
    """

    state: State
    cache: Path

    @property
    def root(self) -> Path:
        """The lab's folder."""
        return self.state.root

    @property
    def topology(self) -> Topology:
        """Its names and addresses."""
        return self.state.topology

    @property
    def site_file(self) -> Path:
        """A site file with the lab's hosts."""
        return self.root / "site.yml"

    @property
    def known_hosts(self) -> Path:
        """The hosts' keys, known because the lab made them."""
        return self.root / "known_hosts"

    @property
    def ssh_key(self) -> Path:
        """The private key that every host's root, ops and auto accept."""
        return self.root / "ssh" / "id_ed25519"

    @property
    def ca(self) -> Path:
        """The machine's roots, headscale's, and that of the lab's ACME server."""
        return self.root / "ca.pem"

    @property
    def enter(self) -> list[str]:
        """An argv prefix that runs a command in the lab's own namespace, where a controller can
        reach everything."""
        return [str(self.root / "enter")]

    @cached_property
    def processes(self) -> Processes:
        """Its processes on this machine."""
        return Processes(self.root, self.root / "log")

    @cached_property
    def hosts(self) -> Mapping[str, LabHost]:
        """Its hosts, up or not."""
        folder = self.root / "hosts"
        return {
            n: LabHost(spec, self.topology, self.processes, folder / n, self.root / "ssh")
            for n, spec in EVERY_HOST.items()
        }

    @cached_property
    def dns(self) -> Dns:
        """Its names."""
        return Dns(self.topology, self.processes, self.root / "etc")

    @cached_property
    def acme(self) -> Acme:
        """Its ACME server."""
        programs = go.built_in(PEBBLE, cache=self.cache)
        folder, other_root = self.root / "acme", self.headscale.ca
        return Acme(self.topology, self.processes, folder, self.ca, other_root, programs)

    @cached_property
    def headscale(self) -> LabHeadscale:
        """Its control server."""
        return LabHeadscale(self.hosts["hs1"], self.root / "headscale")

    @cached_property
    def clients(self) -> Mapping[str, LabClient]:
        """The tailscale clients of its sites, running or not."""
        programs = go.built_in(TAILNET, cache=self.cache)
        etc, folder = self.root / "etc" / "site", self.root / "sites"
        return {
            name: LabClient(
                spec, self.topology, self.processes, folder / name, etc, self.ca, programs, self.headscale
            )
            for name, spec in SITES.items()
        }

    def run_in(
        self,
        place: str,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout_s: float = 60,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, on a site, or as the "controller" in the lab's own namespace.

        Raises LabError when there is no such place, when it is down, and with `check` when the
        command fails.
        """
        where = self._place(place)
        if where is not None:
            return where.run(argv, input=input, timeout_s=timeout_s, check=check)
        return execute(
            [*self.enter, *argv],
            input=input,
            timeout_s=timeout_s,
            check=check,
            what=f"{argv[0]} failed in the lab",
        )

    def enter_in(self, place: str) -> list[str]:
        """Return an argv prefix that runs a command on a host, a site, or as the "controller"."""
        where = self._place(place)
        return self.enter if where is None else where.enter()

    def alive(self) -> dict[str, bool]:
        """Return for each part that was raised whether it still runs.

        A site is alive while its namespace is there.
        """
        running, spaces = self.processes.names(), set(netns.namespaces())
        needs = {NETWORK: {netns.WAY_OUT, DNS}}
        return {
            part: self.topology.namespace_of(part) in spaces
            if part in SITES
            else needs.get(part, {part}) <= running
            for part in self.state.ready
        }

    @property
    def whole(self) -> bool:
        """Whether it is up, and all parts that were raised still run."""
        return NETWORK in self.state.ready and all(self.alive().values())

    def _place(self, place: str) -> LabHost | LabClient | None:
        if place == CONTROLLER:
            return None
        found: LabHost | LabClient | None = self.hosts.get(place) or self.clients.get(place)
        if found is None:
            raise LabError(
                f"the lab has no {place!r}", next=f"one of {', '.join([*EVERY_HOST, *SITES, CONTROLLER])}"
            )
        return found
