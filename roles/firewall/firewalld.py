"""firewalld: the relay's ports are open at run time and permanently. Its other rules stay."""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.resource import OpenPorts, Resource
from inventory.model import Host
from roles.contract import Neighbours, after
from roles.firewall import own

NAME = "firewalld"
STOP = "systemctl disable --now firewalld"

ASK = Ask(commands={NAME: ("systemctl", "is-active", "firewalld.service")})


def is_in_charge(facts: Facts) -> bool:
    """Whether firewalld runs."""
    state = facts.commands.get(NAME)
    return state is not None and state.stdout.strip() == "active"


def resources(host: Host, facts: Facts, neighbours: Neighbours) -> list[Resource]:
    """Return the relay's ports, in the zone of the interface to the internet."""
    return own.opened(host, NAME)


def replaced(facts: Facts) -> list[Resource]:
    """Return the removal of the ports that we opened, if there are any."""
    return own.replaced(facts, NAME)


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of the ports that we opened."""
    return after(needs, [OpenPorts(through=NAME)])


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence if firewalld does not run, and for each protocol that has no port."""
    ssh = "".join(f"firewall-offline-cmd --add-port={port}/tcp && " for port in facts.ssh_ports)
    start = f"{ssh}systemctl enable --now firewalld"
    return own.refusals(host, NAME, in_charge=is_in_charge(facts), start=start)


def warnings(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return nothing: it closes no port."""
    return []
