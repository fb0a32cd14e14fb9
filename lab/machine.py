"""The parts that every machine of the lab has, host or client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.process import Processes
from lab.topology import HostSpec, SiteSpec, Topology


@dataclass(frozen=True)
class Machine:
    """A machine in network namespaces of its own. `folder` holds its files."""

    spec: HostSpec | SiteSpec
    topology: Topology
    processes: Processes
    folder: Path

    @property
    def name(self) -> str:
        """Its name in the site file, or in the tailnet."""
        return self.spec.name
