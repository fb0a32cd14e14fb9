"""Where the packages of a host come from. Frozen data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from inventory.choices import MirroredName, PackagesFromName
from inventory.part import Model
from inventory.values import Url


class PackageSupply(Model):
    """Where the host's packages come from. Its own sources are never changed.

    `mirror` is used in place of them, only by our own calls of the package manager. `from:
    controller` is for a host without a way out: packages come over the SSH connection.
    """

    source: PackagesFromName = Field("host", alias="from", description="who fetches them")
    mirror: Mapping[MirroredName, Url] = Field(
        default_factory=dict,
        description=(
            "base URL of a mirror, by distribution, such as https://mirrors.aliyun.com/debian; Debian's "
            "security updates are beside it, at debian-security"
        ),
    )
