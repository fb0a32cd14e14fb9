"""SELinux: a resource, as those of `engine.resource`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.resource import Resource


@dataclass(frozen=True, kw_only=True)
class Selinux(Resource):
    """Additions to the host's SELinux policy.

    `booleans` are on, and each of `ports` is (label, TCP port). Additions of earlier runs that are
    no longer in either are taken back; those of other programs stay.
    """

    kind: ClassVar[str] = "selinux"
    booleans: tuple[str, ...] = ()
    ports: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return "policy"
