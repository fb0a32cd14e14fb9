"""Docker on a relay host: its packages, and where the image comes from."""

from __future__ import annotations

from pydantic import Field

from inventory.choices import DockerName
from inventory.part import Model
from inventory.values import ImageRef, LocalPath, Url


class Docker(Model):
    """For a relay under docker.

    Exactly one image source: a registry reference with digest, or an archive shipped from the
    controller.
    """

    image: ImageRef | None = Field(None, description="name@sha256:…, pulled by the host")
    archive: LocalPath | None = Field(
        None, description="path of a `docker save` or OCI archive on the controller, shipped to the host"
    )
    packages: DockerName = "distribution"
    mirror: Url | None = Field(
        None,
        description="base URL of a mirror of Docker's packages, such as https://mirrors.aliyun.com/docker-ce",
    )
    registry_mirrors: tuple[Url, ...] = ()
