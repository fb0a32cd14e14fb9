"""A tailscaled of the relay's host, as the relay asks it: by its socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.facts import Ask, Facts
from engine.scripts import script
from inventory import tailscaled
from inventory.model import Host
from roles.relay.contract import Inquiry

_ASKED = "tailscaled"  # the command's name among the facts
_NOBODY = f"nodekey:{'0' * 63}1"  # only whether there is an answer counts


def flags(socket: str) -> tuple[tuple[str, ...], ...]:
    """Return derper's flags."""
    return (("-verify-clients",), ("-socket", socket))


def ask(host: Host, socket: str) -> Ask:
    """Return the question whether it answers."""
    return Ask(commands={_ASKED: (host.ssh.python, "-I", "-c", script("ask_tailscaled"), socket, _NOBODY)})


def inquiry(socket: str, key: str) -> Inquiry:
    """Return the question that the relay asks, about that key."""
    return Inquiry(judge=socket, program=(script("ask_tailscaled"), socket, key))


def answer(facts: Facts) -> Mapping[str, Any]:
    """Return its answer to `ask`; empty if there is none."""
    said = facts.commands.get(_ASKED)
    return tailscaled.read(said.stdout) if said else {}


def warnings(facts: Facts) -> list[str]:
    """Return a sentence if it knows no node, or will not for long."""
    return list(tailscaled.warnings(answer(facts)))
