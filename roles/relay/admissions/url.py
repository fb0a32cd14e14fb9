"""An admission controller that is asked by http about every client: headscale's /verify, or any."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.scripts import script
from inventory.admission import verify_url
from inventory.model import Host, Site
from roles.contract import nothing
from roles.relay.contract import Admitting, Inquiry

KNOWN_BY: tuple[str, ...] = ()
# The URL is a flag. A controller that is down now may be up when clients come.
absent = refusals = warnings = nothing


def admitting(host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
    """Return the URL, and whether a client is admitted when there is no answer."""
    url = verify_url(host, site)
    fail_open = f"-verify-client-url-fail-open={str(host.relay.verify_fail_open).lower()}"
    return Admitting(flags=(("-verify-client-url", url), (fail_open,)), url=url)


def ask(host: Host, site: Site) -> Ask:
    """Return no question: the proof asks the URL."""
    return Ask()


def inquiry(host: Host, site: Site, key: str) -> Inquiry:
    """Return the question that the relay asks, about that key."""
    url = verify_url(host, site)
    is_vital = not host.relay.verify_fail_open
    return Inquiry(judge=url, program=(script("ask_admission"), url, key), is_vital=is_vital)
