"""The systems of hosts, by the name in their `lab.topology.HostSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from engine.cache import Progress
from lab import debian, enterprise, ubuntu
from lab.topology import SystemName


class MakeBase(Protocol):
    """Makes the root of a system once."""

    def __call__(self, suite: str, *, cache: Path, progress: Progress) -> Path:
        """Return its folder. `suite`: Debian's release. Raises LabError, CacheError."""


BASES: Mapping[SystemName, MakeBase] = {
    "debian": debian.base,
    "el9": enterprise.base,
    "ubuntu": ubuntu.base,
}
