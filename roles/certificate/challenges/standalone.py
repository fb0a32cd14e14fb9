"""The challenge on the host's http port while the program that has it is stopped.

For a program that can neither serve certbot's answers nor hand the question on.
"""

from __future__ import annotations

from inventory.model import Host
from roles.contract import Challenge, nothing

# systemd and the certificate's program do it, and start the program again after each order.
resources = absent = nothing


def challenge(host: Host, by_front: Challenge) -> Challenge:
    """Return how challenges are answered: by certbot, as long as an order takes."""
    argv = ("--standalone", "--http-01-port", str(host.ports.http))
    return Challenge(argv, needs=by_front.needs, stops=host.certificate.stop)
