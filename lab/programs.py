"""The sources of the lab's Go programs: folders that `artefacts.go` builds."""

from __future__ import annotations

from pathlib import Path

from artefacts.binary import source
from artefacts.programs import DERPER as HOSTS_DERPER

_SOURCES = Path(__file__).parent / "go"
TAILNET = _SOURCES / "tailnet"  # headscale, and tailscale's client
DERPER = source(HOSTS_DERPER)
PEBBLE = _SOURCES / "pebble"  # the ACME server, with profiles, ARI and certificates for addresses
