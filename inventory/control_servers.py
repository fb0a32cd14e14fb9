"""Control servers that have no host of ours. Frozen data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from inventory.choices import AdmissionName, ControlName
from inventory.part import Model

if TYPE_CHECKING:
    from inventory.model import Ssh


class MapFile(Model):
    """A headscale whose map is a file of the controller, which somebody else delivers.

    This is not a section of the site file: it is `headscale` with `map_file`.
    """

    kind: ClassVar[ControlName] = "map-file"
    admission: ClassVar[AdmissionName] = "headscale"

    path: str
    url: str
    verify_url: str

    def hosts(self) -> Mapping[str, Ssh]:
        """Return no host."""
        return {}


class Paste(Model):
    """No control server that is ours to change: an operator pastes the map into it.

    This is not a section of the site file.
    """

    kind: ClassVar[ControlName] = "paste"
    admission: ClassVar[AdmissionName] = "open"
    url: ClassVar[str] = ""
    verify_url: ClassVar[str] = ""

    def hosts(self) -> Mapping[str, Ssh]:
        """Return no host."""
        return {}
