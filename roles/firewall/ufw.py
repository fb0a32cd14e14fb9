"""ufw: an application profile of ours has the relay's ports. ufw's other rules stay."""

from __future__ import annotations

import re

from engine.facts import Ask, Facts
from engine.resource import OpenPorts, Resource
from inventory.model import Host
from roles.contract import Neighbours, after
from roles.firewall import own

NAME = "ufw"
STOP = "ufw disable"
_CONF = "/etc/ufw/ufw.conf"

ASK = Ask(files=(_CONF,))


def is_in_charge(facts: Facts) -> bool:
    """Whether ufw is enabled. Its unit becomes active at the next boot only."""
    conf = facts.files.get(_CONF)
    text = (conf.content or "") if conf is not None else ""
    return re.search(r"^ENABLED=[\"']?yes\b", text, re.M | re.I) is not None


def resources(host: Host, facts: Facts, neighbours: Neighbours) -> list[Resource]:
    """Return the profile with the relay's ports, and its rule."""
    return own.opened(host, NAME)


def replaced(facts: Facts) -> list[Resource]:
    """Return the removal of profile and rule, if there are any."""
    return own.replaced(facts, NAME)


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of profile and rule."""
    return after(needs, [OpenPorts(through=NAME)])


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence if ufw is not active, and for each protocol that has no port."""
    start = "".join(f"ufw allow {port}/tcp && " for port in facts.ssh_ports) + "ufw --force enable"
    return own.refusals(host, NAME, in_charge=is_in_charge(facts), start=start)


def warnings(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return nothing: it closes no port."""
    return []
