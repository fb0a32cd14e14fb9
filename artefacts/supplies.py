"""The files of the cache that a controller has to have to deploy a host without a network."""

from __future__ import annotations

from pathlib import Path

from artefacts.binary import build_binary
from artefacts.release import wheels
from artefacts.shipment import derper_binary, python_relay, shipped_certbot, tailscaled_binary
from engine.cache import Progress
from engine.facts import Facts
from inventory.model import Host


def supplies(host: Host, facts: Facts, *, cache: Path, progress: Progress) -> set[Path]:
    """Return the wheels and the built programs of the host. What is missing is fetched and made.

    Wheels, not releases: the locks have their sums, so that no bundle can change them.
    `facts`: of the host, or of one of the same release and architecture.
    Raises Offline, ReleaseError and GoError.
    """
    programs = filter(None, (python_relay(host), shipped_certbot(host)))
    found = {path for program in programs for path in wheels(program, facts, cache=cache, progress=progress)}
    binaries = filter(None, (derper_binary(host), tailscaled_binary(host)))
    built = {build_binary(binary, facts.arch, cache=cache, progress=progress).path for binary in binaries}
    return found | built
