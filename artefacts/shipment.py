"""Make a host's artefacts on the controller: releases, the derper image, secrets.

`Shipment` is data that roles read. `make_shipment` makes it, once for each input, under `cache`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from artefacts.derper import build_derper
from artefacts.image import ImageArtefact, import_archive
from artefacts.programs import CERTBOT, RELAY, certbot_with
from artefacts.release import Release, build_release
from engine.cache import Progress
from engine.facts import Facts
from inventory.choices import challenge_of, program_of, runner_of, source_of
from inventory.model import Host, Site
from inventory.secrets import Secret, read_secret


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Controller-side artefacts of one host; None if its roles do not use them.

    `secrets`: by their reference in the site file.
    Two ways for our proof into a relay that asks headscale: `prober_keys`, the public keys of its
    clients as `nodekey:<64 hex>`; `mesh_key`, 64 hex digits, for a program that knows no other way.
    """

    relay_release: Release | None = None
    certbot_release: Release | None = None
    image: ImageArtefact | None = None
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    prober_keys: tuple[str, ...] = ()
    mesh_key: Secret | None = None


def make_shipment(
    host: Host,
    site: Site,
    facts: Facts,
    *,
    cache: Path,
    prober_keys: tuple[str, ...] = (),
    mesh_key: Secret | None = None,
    progress: Progress = lambda text: None,
) -> Shipment:
    """Return everything that the roles of `host` need. With the same inputs nothing is made twice.

    Raises ReleaseError, GoError, ImageError and SecretError.
    """
    base = Path(site.path).parent
    certificate = host.certificate
    shipped_certbot = source_of(host).is_acme and certificate.certbot == "shipped"
    by_zone = source_of(host).is_acme and challenge_of(host).by_zone
    dns = certificate.dns if by_zone else None
    account = certificate.account if source_of(host).is_acme else None
    key = certificate.key if source_of(host).needs_files else None
    references = (key, dns.secret if dns else None, account.hmac if account else None)
    certbot = certbot_with(dns.provider) if dns else CERTBOT
    build = partial(build_release, facts=facts, cache=cache, progress=progress)
    return Shipment(
        relay_release=_relay(host, facts, cache, progress),
        certbot_release=build(certbot) if shipped_certbot else None,
        image=_image(host, facts, cache),
        secrets={reference: read_secret(reference, base=base) for reference in references if reference},
        prober_keys=prober_keys,
        mesh_key=mesh_key,
    )


def _relay(host: Host, facts: Facts, cache: Path, progress: Progress) -> Release | None:
    """Return the relay's release; None for an image."""
    if program_of(host).is_python:
        return build_release(RELAY, facts, cache=cache, progress=progress)
    if runner_of(host).in_container:
        return None
    return build_derper(facts.arch, cache=cache, progress=progress)


def _image(host: Host, facts: Facts, cache: Path) -> ImageArtefact | None:
    if not runner_of(host).in_container or host.docker.archive is None:
        return None
    return import_archive(Path(host.docker.archive), arch=facts.arch, cache=cache)
