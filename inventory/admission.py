"""The clients that may use the relay, as the site file says."""

from __future__ import annotations

from inventory.model import Host, Site


def verify_url(host: Host, site: Site) -> str:
    """Return the URL that the relay asks for every client; "" if every client may use it."""
    if host.relay.open:
        return ""
    return host.relay.verify_client_url or site.control.verify_url
