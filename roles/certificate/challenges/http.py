"""The challenge on the host's http port: the front or certbot answers it."""

from __future__ import annotations

from inventory.model import Host
from roles.contract import Challenge, nothing

resources = absent = nothing  # the front brings its own


def challenge(host: Host, by_front: Challenge) -> Challenge:
    """Return the front's way."""
    return by_front
