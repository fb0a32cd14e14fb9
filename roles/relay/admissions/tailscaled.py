"""A tailscaled that the host has already: the relay admits the nodes that it knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.facts import Ask, Facts
from engine.scripts import script
from inventory import tailscaled
from inventory.model import Host, Site
from roles.contract import nothing
from roles.relay.contract import Admitting, Inquiry

_ASKED = "tailscaled"  # the command's name among the facts
_NOBODY = f"nodekey:{'0' * 63}1"  # only whether there is an answer counts


absent = nothing  # tailscaled is the operator's


def admitting(host: Host, site: Site) -> Admitting:
    """Return derper's flags."""
    return Admitting(flags=(("-verify-clients",), ("-socket", _socket(host))))


def _socket(host: Host) -> str:
    """Return the socket's path as the relay sees it: its /var has no link to /run."""
    return host.relay.tailscaled.socket.removeprefix("/var")


def ask(host: Host) -> Ask:
    """Return the question whether it answers."""
    program = (script("ask_tailscaled"), _socket(host), _NOBODY)
    return Ask(commands={_ASKED: (host.ssh.python, "-I", "-c", *program)})


def inquiry(host: Host, site: Site, key: str) -> Inquiry:
    """Return the question that the relay asks, about that key."""
    return Inquiry(judge=_socket(host), program=(script("ask_tailscaled"), _socket(host), key))


def _answer(facts: Facts) -> Mapping[str, Any]:
    said = facts.commands.get(_ASKED)
    return tailscaled.read(said.stdout) if said else {}


def refusals(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if the relay would refuse everybody."""
    answer = _answer(facts)
    if answer.get("step") == "":
        return []
    cause, command = tailscaled.CAUSES.get(
        str(answer.get("step")), ("the host did not answer our question", "see ssh.python in the site file")
    )
    detail = f": {answer['detail']}" if answer.get("detail") else ""
    return [
        f"{host.name} is to ask the tailscaled at {_socket(host)} who may use the relay{detail}; {cause}. "
        f"Look with `{command.format(judge=_socket(host))}`, "
        f"or set hosts.{host.name}.relay.tailscaled.socket."
    ]


def warnings(host: Host, facts: Facts) -> list[str]:
    """Return a sentence if it knows no node, or will not for long."""
    return list(tailscaled.warnings(_answer(facts)))
