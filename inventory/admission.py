"""The clients that may use the relay, as the site file says."""

from __future__ import annotations

from inventory.choices import ADMISSIONS, AdmissionName
from inventory.model import Host, Site


def admission_name(host: Host, site: Site) -> AdmissionName:
    """Return the word of `relay.admission`, also where shorter keys or the site imply it."""
    if host.relay.admission:
        return host.relay.admission
    if host.relay.open:
        return "open"
    return "url" if host.relay.verify_client_url else site.control.admission


def verifies(host: Host, site: Site) -> bool:
    """Whether the relay refuses strangers."""
    return ADMISSIONS[admission_name(host, site)].verifies


def verify_url(host: Host, site: Site) -> str:
    """Return the URL that the relay asks for every client; "" if it asks none."""
    urls = {"headscale": site.control.verify_url, "relay": host.relay.verify_client_url or "", "": ""}
    return urls[ADMISSIONS[admission_name(host, site)].url]
