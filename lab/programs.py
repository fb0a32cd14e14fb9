"""The sources of the lab's Go programs: folders that `artefacts.go` builds."""

from __future__ import annotations

from pathlib import Path

from artefacts.derper import SOURCE

_SOURCES = Path(__file__).parent / "go"
TAILNET = _SOURCES / "tailnet"  # headscale, and tailscale's client
DERPER = SOURCE
PEBBLE = _SOURCES / "pebble"  # the ACME server, with profiles, ARI and certificates for addresses
