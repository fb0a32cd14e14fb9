"""The parts of SELinux's policy that a front needs to reach the relay, where SELinux is on.

The relay itself runs without a domain of its own, which may use all ports.
"""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.policy import Selinux
from engine.resource import Package, Resource
from roles.contract import after
from roles.wiring import Wiring

ASK = Ask(commands={"selinux": ("getenforce",)})
_TOOLS = Package(package="policycoreutils-python-utils")
# Fronts that run in the domain httpd_t. It may listen on ports with this label and, with this
# boolean, connect to them.
_HTTPD = frozenset({"nginx"})
LABEL, BOOLEAN = "http_port_t", "httpd_can_network_relay"


def is_on(facts: Facts) -> bool:
    """Whether SELinux is enforcing its policy, or notes what it would refuse."""
    said = facts.commands.get("selinux")
    return said is not None and said.stdout.strip() in ("Enforcing", "Permissive")


def resources(wiring: Wiring, facts: Facts) -> list[Resource]:
    """Return the policy's additions, and the removal of those of a former front."""
    if not is_on(facts):
        return []
    program = wiring.public_program
    if program not in _HTTPD:
        return absent(facts)
    uses = {use.port for use in wiring.uses if use.proto == "tcp" and use.program == program}
    ports = sorted({*uses, wiring.relay.port})
    policy = Selinux(
        booleans=(BOOLEAN,), ports=tuple((LABEL, port) for port in ports), needs=(_TOOLS.id,)
    )
    return [_TOOLS, policy]


def absent(facts: Facts, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the policy without our additions, after `needs`. The package stays."""
    return after(needs, [Selinux()]) if is_on(facts) else []
