"""The record of a lab, `state.json` in its folder: its addresses, and which of its parts are up.

Written before anything is made. Nothing that the lab makes needs a list: namespaces and control
groups have names that derive from the folder, processes a mark (`lab.process`). So the remains of a
crash are found even when this file is lost. Several threads write.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from lab.topology import Topology

VERSION = 1
FILE = "state.json"


@dataclass
class State:
    """A lab's record. `ready` lists the parts that are up, in the order in which they came up."""

    root: Path
    topology: Topology
    ready: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def is_ready(self, part: str) -> None:
        """Write down that this part is up."""
        with self._lock:
            if part not in self.ready:
                self.ready.append(part)
                self.write()

    def write(self) -> None:
        """Write the file, whole or not at all."""
        names = {
            "id": self.topology.id,
            "network": str(self.topology.network),
            "way_out": str(self.topology.way_out),
        }
        temporary = self.root / f"{FILE}.new"
        temporary.write_text(json.dumps({"version": VERSION, **names, "ready": self.ready}, indent=1) + "\n")
        temporary.replace(self.root / FILE)


def read(root: Path) -> State | None:
    """Read the state of the lab in this folder; None where there is none, or one of another version
    of the lab."""
    try:
        raw = json.loads((root / FILE).read_text())
        if raw["version"] != VERSION:
            return None
        return State(
            root,
            Topology(raw["id"], IPv4Network(raw["network"]), IPv4Network(raw["way_out"])),
            list(raw["ready"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
