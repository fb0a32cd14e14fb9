"""What the controller makes for a host before the roles speak: releases for its Python, the derper image, secrets.

`Shipment` is data that roles read; `make_shipment` does the work, once for each distinct input, under `cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from artefacts.image import ImageArtefact, import_archive
from artefacts.programs import CERTBOT, RELAY
from artefacts.release import Release, build_release
from engine.facts import Facts
from inventory.choices import program_of, runner_of, source_of
from inventory.model import Host, Site
from inventory.secrets import Secret, read_secret


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Controller-side artefacts of one host. What its roles do not use is None.

    `secrets`: by their reference in the site file. `mesh_key`: what lets our proof into a relay that asks headscale, 64 hex digits.
    """

    relay_release: Release | None = None
    certbot_release: Release | None = None
    image: ImageArtefact | None = None
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    mesh_key: Secret | None = None


def make_shipment(
    host: Host,
    site: Site,
    facts: Facts,
    *,
    cache: Path,
    mesh_key: Secret | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Shipment:
    """Everything that the roles of `host` need; a second call with the same inputs finds it made.

    Raises ReleaseError, ImageError and SecretError.
    """
    base = Path(site.path).parent
    certificate = host.certificate
    shipped_certbot = source_of(host).is_acme and certificate.certbot == "shipped"
    return Shipment(
        relay_release=build_release(RELAY, facts, cache=cache, progress=progress) if program_of(host).is_release else None,
        certbot_release=build_release(CERTBOT, facts, cache=cache, progress=progress) if shipped_certbot else None,
        image=_image(host, facts, cache),
        secrets={certificate.key: read_secret(certificate.key, base=base)} if source_of(host).needs_files and certificate.key else {},
        mesh_key=mesh_key,
    )


def _image(host: Host, facts: Facts, cache: Path) -> ImageArtefact | None:
    if not runner_of(host).in_container or host.docker.archive is None:
        return None
    return import_archive(Path(host.docker.archive), arch=facts.arch, cache=cache)
