"""firewalld: the relay's ports are open at run time and permanently. Its other rules stay."""

from __future__ import annotations

from functools import partial

from engine.facts import Ask, Facts
from inventory.model import Host
from roles.contract import Neighbours
from roles.firewall import own

NAME = "firewalld"
STOP = "systemctl disable --now firewalld"

ASK = Ask(commands={NAME: ("systemctl", "is-active", "firewalld.service")})

resources, replaced = partial(own.resources, NAME), partial(own.replaced, NAME)
absent, warnings = partial(own.absent, NAME), own.warnings


def is_in_charge(facts: Facts) -> bool:
    """Whether firewalld runs."""
    state = facts.commands.get(NAME)
    return state is not None and state.stdout.strip() == "active"


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence if firewalld does not run, and for each protocol that has no port."""
    ssh = "".join(f"firewall-offline-cmd --add-port={port}/tcp && " for port in facts.ssh_ports)
    start = f"{ssh}systemctl enable --now firewalld"
    return own.refusals(NAME, host, in_charge=is_in_charge(facts), start=start)
