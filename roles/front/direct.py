"""No front: clients reach the relay itself, which serves TLS.

The http port is the relay's or certbot's, and the relay refuses ports that are taken.
"""

from __future__ import annotations

from engine.facts import Ask, Facts
from inventory.model import Host
from roles.contract import Challenge, ReloadTest, never, nothing

ASK = Ask()
ASK_ABSENT = Ask()
RELOAD: tuple[str, ...] = ()
TEST: ReloadTest | None = None

http_resources = https_resources = replaced = absent = nothing
test_units = absent_test_units = nothing
refusals = warnings = absence_refusals = callers = nothing
shares, open_ports, other_sites = never, nothing, nothing


def challenge(host: Host, facts: Facts) -> Challenge:
    """Return how challenges are answered: by certbot, as long as an order takes."""
    return Challenge(("--standalone", "--http-01-port", str(host.ports.http)))
