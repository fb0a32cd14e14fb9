"""No front: clients reach the relay itself, which serves TLS."""

from __future__ import annotations

from engine.facts import Ask, Facts, Listener
from engine.resource import Resource
from inventory.model import Host
from roles.contract import Caller, Challenge, Issued, ReloadTest
from roles.wiring import LOOPBACK, Use, Wiring

ASK = Ask()
ASK_ABSENT = Ask()
RELOAD: tuple[str, ...] = ()
TEST: ReloadTest | None = None


def challenge(host: Host, facts: Facts) -> Challenge:
    """Return how challenges are answered: by certbot, as long as an order takes."""
    return Challenge(("--standalone", "--http-01-port", str(host.ports.http)))


def http_resources(host: Host, facts: Facts, certificate: Issued) -> list[Resource]:
    """Return nothing: the relay or certbot has the http port."""
    return []


def https_resources(host: Host, facts: Facts, certificate: Issued, relay: str) -> list[Resource]:
    """Return nothing: the relay serves the certificate."""
    return []


def replaced(wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return nothing, as there is no front to remove."""
    return []


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return nothing, as there is no front to remove."""
    return []


def test_units() -> list[Resource]:
    """Return nothing: there is no `TEST`."""
    return []


def absent_test_units() -> list[Resource]:
    """Return nothing: there is no `TEST`."""
    return []


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing: the relay refuses ports that are taken."""
    return []


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return nothing, as there is no front."""
    return []


def absence_refusals(host: Host, facts: Facts) -> list[str]:
    """Return nothing, as there is no front to remove."""
    return []


def shares(listener: Listener, use: Use, facts: Facts) -> bool:
    """Return False, as there is no front's program."""
    return False


def open_ports(facts: Facts) -> set[tuple[str, int]]:
    """Return nothing, as there is no front's program."""
    return set()


def other_sites(facts: Facts) -> list[str]:
    """Return nothing, as there is no front's program."""
    return []


def caller(facts: Facts) -> Caller | None:
    """Return None: clients connect to the relay."""
    return None


def reached_at(facts: Facts, port: int) -> str:
    """Return loopback, one of all the addresses that the relay listens on."""
    return f"{LOOPBACK}:{port}"
