"""The resource that says where packages come from, in place of the host's own sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from engine.resource import Conffile, Content, Package, Resource


@dataclass(frozen=True, kw_only=True)
class PackageSource(Resource):
    """The only source of packages in this run. Nothing of it stays on the host.

    `origin`: its name in messages. `sources`: the file that names it to the package manager;
    `{folder}` in it is where `archive` is unpacked: a tar of packages, which is sent when one is
    lacking.
    """

    kind: ClassVar[str] = "package_source"
    origin: str
    sources: str
    archive: Content | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.origin


def sourced(source: PackageSource, resources: Sequence[Resource]) -> list[Resource]:
    """Return the source, and the resources, of which those that install packages need it."""
    return [
        source,
        *(
            replace(resource, needs=(source.id, *resource.needs))
            if isinstance(resource, Package | Conffile)
            else resource
            for resource in resources
        ),
    ]
