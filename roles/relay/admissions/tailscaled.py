"""A tailscaled that the host has already: the relay admits the nodes that it knows."""

from __future__ import annotations

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts
from inventory import tailscaled
from inventory.model import Host, Site
from roles.contract import nothing
from roles.relay import local_tailscaled
from roles.relay.contract import Admitting, Inquiry

KNOWN_BY: tuple[str, ...] = ()
absent = nothing  # tailscaled is the operator's


def admitting(host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
    """Return derper's flags."""
    return Admitting(flags=local_tailscaled.flags(_socket(host)))


def _socket(host: Host) -> str:
    """Return the socket's path as the relay sees it: its /var has no link to /run."""
    return host.relay.tailscaled.socket.removeprefix("/var")


def ask(host: Host, site: Site) -> Ask:
    """Return the question whether it answers."""
    return local_tailscaled.ask(host, _socket(host))


def inquiry(host: Host, site: Site, key: str) -> Inquiry:
    """Return the question that the relay asks, about that key."""
    return local_tailscaled.inquiry(_socket(host), key)


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if the relay would refuse everybody."""
    answer, socket = local_tailscaled.answer(facts), _socket(host)
    if answer.get("step") == "":
        return []
    cause, command = tailscaled.CAUSES.get(
        str(answer.get("step")), ("the host did not answer our question", f"{host.ssh.python} --version")
    )
    detail = f": {answer['detail']}" if answer.get("detail") else ""
    return [
        f"{host.name} is to ask the tailscaled at {socket} who may use the relay{detail}; {cause}. "
        f"Look with `{command.format(judge=socket, **tailscaled.names(socket))}`, set "
        f"hosts.{host.name}.relay.tailscaled.socket, or let a deploy install one: "
        f"hosts.{host.name}.relay.tailscaled.manage."
    ]


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if it knows no node, or will not for long."""
    return local_tailscaled.warnings(facts)
