"""An admission controller that is asked by http about every client: headscale's /verify, or any."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from engine.resource import Resource
from engine.scripts import script
from inventory.admission import verify_url
from inventory.model import Host, Site
from roles.relay.contract import Inquiry

KNOWN_BY = ""


def flags(host: Host, site: Site) -> tuple[tuple[str, ...], ...]:
    """Return the URL, and whether a client is admitted when there is no answer."""
    fail_open = f"-verify-client-url-fail-open={str(host.relay.verify_fail_open).lower()}"
    return (("-verify-client-url", verify_url(host, site)), (fail_open,))


def resources(host: Host, site: Site, facts: Facts, ship: Shipment) -> tuple[Resource, ...]:
    """Return nothing: the URL is a flag."""
    return ()


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return nothing."""
    return []


def ask(host: Host, site: Site) -> Ask:
    """Return nothing: the proof asks the URL."""
    return Ask()


def inquiry(host: Host, site: Site, key: str) -> Inquiry:
    """Return the question that the relay asks, about that key."""
    url = verify_url(host, site)
    return Inquiry(judge=url, program=(script("ask_admission"), url, key))


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: a controller that is down now may be up when clients come."""
    return []


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return nothing."""
    return []
