"""The lab's own record, `state.json` in its folder: what is about to be made is written down before it is made.

Whatever a crash leaves is on the list or carries the lab's mark (`lab.process`), so `down` finds it. Several threads write.
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
    """`made` lists `kind:name` of namespaces and cgroups, in the order in which they were made; `ready` the parts that are up."""

    root: Path
    topology: Topology
    made: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def will_make(self, kind: str, name: str) -> None:
        """Write down that this thing is about to be made."""
        with self._lock:
            if (entry := f"{kind}:{name}") not in self.made:
                self.made.append(entry)
                self._write()

    def things(self, kind: str) -> list[str]:
        """The names of the things of that kind, the newest first."""
        return [name for k, _, name in (entry.partition(":") for entry in reversed(self.made)) if k == kind]

    def is_ready(self, part: str) -> None:
        """Write down that this part is up."""
        with self._lock:
            if part not in self.ready:
                self.ready.append(part)
                self._write()

    def write(self) -> None:
        """Write the file."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        text = json.dumps(
            {
                "version": VERSION,
                "id": self.topology.id,
                "network": str(self.topology.network),
                "way_out": str(self.topology.way_out),
                "made": self.made,
                "ready": self.ready,
            },
            indent=1,
        )
        temporary = self.root / f"{FILE}.new"
        temporary.write_text(text + "\n")
        temporary.replace(self.root / FILE)


def read(root: Path) -> State | None:
    """The state of the lab in this folder; None where there is none, or one of another version of the lab."""
    try:
        raw = json.loads((root / FILE).read_text())
        if raw["version"] != VERSION:
            return None
        topology = Topology(raw["id"], IPv4Network(raw["network"]), IPv4Network(raw["way_out"]))
        return State(root, topology, list(raw["made"]), list(raw["ready"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
