"""The parts that all firewalls of the host's own share. Pure.

They are in charge before us, and have rules of others. We only open ports there, and close those.
`name`: the firewall, as in the site file.
"""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.resource import OpenPorts, Resource
from inventory.model import Host
from roles import paths
from roles.contract import Neighbours, after
from roles.wiring import wire

NOTES = Ask(files=(f"{paths.AGENT}/opened-*",))
"""The agent's notes of ports that are open in such a firewall (files/agent/open_ports.py)."""


def resources(name: str, host: Host, facts: Facts, neighbours: Neighbours) -> list[Resource]:
    """Return the opening of the relay's public ports and the site file's.

    SSH and the host's other programs are let in by its own rules, or are not meant to be.
    """
    found = {f"{use.port}/{use.proto}" for use in wire(host).uses if use.public}
    found |= {entry for entry in host.firewall.allow if not _has_no_port(entry)}
    return [OpenPorts(through=name, ports=tuple(sorted(found, key=_order)))]


def _order(entry: str) -> tuple[str, int]:
    numbers, _, proto = entry.partition("/")
    return proto, int(numbers.partition("-")[0])


def _has_no_port(entry: str) -> bool:
    return entry.endswith("/ip")


def replaced(name: str, facts: Facts) -> list[Resource]:
    """Return the removal of what we opened, if we did."""
    return [OpenPorts(through=name)] if f"{paths.AGENT}/opened-{name}" in facts.files else []


def absent(name: str, *, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of all that we may have opened, after `needs`."""
    return after(needs, [OpenPorts(through=name)])


def warnings(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return nothing: such a firewall closes no port for us."""
    return []


def refusals(name: str, host: Host, *, in_charge: bool, start: str) -> list[str]:
    """Return the reasons against opening ports in that firewall. `start`: what makes it active."""
    found = []
    if not in_charge:
        found.append(
            f"{name} is not active on {host.name}, and derpfleet starts no firewall that could lock you out: "
            f"run on the host: {start}. Or set hosts.{host.name}.firewall.mode to auto, which uses the one "
            "that is active, else derpfleet's own table."
        )
    found += [
        f"hosts.{host.name}.firewall.allow has {entry}, a protocol without ports, which derpfleet does not "
        f"open in {name}: allow it there, and take {entry} out of the site file."
        for entry in host.firewall.allow
        if _has_no_port(entry)
    ]
    return found
