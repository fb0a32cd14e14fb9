"""Who may use the relay, as the site file says."""

from __future__ import annotations

from inventory.model import Host, Site
from roles import paths


def verify_url(host: Host, site: Site) -> str:
    """The URL that the relay asks for every client; "" when it asks nobody."""
    if host.relay.open:
        return ""
    return host.relay.verify_client_url or site.control.verify_url


def mesh_key_id(host: Host, site: Site) -> str:
    """The resource that stands for the mesh key, or for its absence."""
    return f"{'file' if verify_url(host, site) else 'absent'}:{paths.MESH_KEY}"
