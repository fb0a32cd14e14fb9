"""The mesh key, which lets the prover into a relay that asks who may use it."""

from __future__ import annotations

from inventory.admission import verify_url
from inventory.model import Host, Site
from roles import paths


def mesh_key_id(host: Host, site: Site) -> str:
    """Return the id of the mesh key, or of its removal."""
    return f"{'file' if verify_url(host, site) else 'absent'}:{paths.MESH_KEY}"
