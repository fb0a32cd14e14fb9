"""Make a host's artefacts on the controller: releases, the derper image, secrets.

`Shipment` is data that roles read. `make_shipment` makes it, once for each input, under `cache`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from artefacts.binary import build_binary
from artefacts.image import ImageArtefact, import_archive
from artefacts.programs import CERTBOT, DERPER, RELAY, TAILSCALED, Artefact, Binary, certbot_with
from artefacts.release import Release, build_release
from engine.cache import Progress
from engine.facts import Facts
from inventory import tailscaled
from inventory.acme import DnsZone
from inventory.choices import challenge_of, program_of, runner_of, ships_certbot, source_of
from inventory.model import Host, Site
from inventory.secrets import Secret, read_secret


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Controller-side artefacts of one host; None if its roles do not use them.

    `packages`: an archive of packages, with those that the host lacks.
    `secrets`: by their reference in the site file.
    Two ways for our proof into a relay that asks headscale: `prober_keys`, the public keys of its
    clients as `nodekey:<64 hex>`; `mesh_key`, 64 hex digits, for a program that knows no other way.
    """

    relay_release: Release | None = None
    certbot_release: Release | None = None
    tailscaled_release: Release | None = None
    image: ImageArtefact | None = None
    packages: Release | None = None
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

    Raises Offline, ReleaseError, GoError, ImageError and SecretError.
    """
    base = Path(site.path).parent
    certificate, relay, certbot = host.certificate, python_relay(host), shipped_certbot(host)
    dns = _dns(host)
    account = certificate.account if source_of(host).is_acme else None
    key = certificate.key if source_of(host).needs_files else None
    references = (
        key, dns.secret if dns else None, account.hmac if account else None, auth_key(host, facts)
    )
    derper, joins = derper_binary(host), tailscaled_binary(host)
    build = partial(build_release, facts=facts, cache=cache, progress=progress)
    build_go = partial(build_binary, arch=facts.arch, cache=cache, progress=progress)
    return Shipment(
        relay_release=build(relay) if relay else build_go(derper) if derper else None,
        certbot_release=build(certbot) if certbot else None,
        tailscaled_release=build_go(joins) if joins else None,
        image=_image(host, facts, cache),
        secrets={reference: read_secret(reference, base=base) for reference in references if reference},
        prober_keys=prober_keys,
        mesh_key=mesh_key,
    )


def python_relay(host: Host) -> Artefact | None:
    """Return the relay that is shipped to the host with its wheels, if that is ours."""
    return RELAY if program_of(host).is_python else None


def shipped_certbot(host: Host) -> Artefact | None:
    """Return the certbot that is shipped to the host with its wheels, if it needs one."""
    if not source_of(host).is_acme or not ships_certbot(host):
        return None
    dns = _dns(host)
    return certbot_with(dns.provider) if dns else CERTBOT


def _dns(host: Host) -> DnsZone | None:
    """Return the zone in which the challenges are answered, if they are."""
    by_zone = source_of(host).is_acme and challenge_of(host).by_zone
    return host.certificate.dns if by_zone else None


def derper_binary(host: Host) -> Binary | None:
    """Return derper, if it is shipped to the host. A container has it in its image."""
    return None if program_of(host).is_python or runner_of(host).in_container else DERPER


def tailscaled_binary(host: Host) -> Binary | None:
    """Return our tailscaled, if it is shipped to the host."""
    return TAILSCALED if host.relay.tailscaled.manage else None


def auth_key(host: Host, facts: Facts) -> str | None:
    """Return the reference of the key with which our tailscaled has yet to join.

    It may be lost once that has joined.
    """
    said = facts.commands.get(tailscaled.STATE)
    joins = host.relay.tailscaled.manage and tailscaled.needs_auth_key(said.stdout if said else "")
    return host.relay.tailscaled.auth_key if joins else None


def _image(host: Host, facts: Facts, cache: Path) -> ImageArtefact | None:
    if not runner_of(host).in_container or host.docker.archive is None:
        return None
    return import_archive(Path(host.docker.archive), arch=facts.arch, cache=cache)
