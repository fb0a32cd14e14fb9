"""ufw: an application profile of ours has the relay's ports. ufw's other rules stay."""

from __future__ import annotations

import re
from functools import partial

from engine.facts import Ask, Facts
from inventory.model import Host
from roles.contract import Neighbours
from roles.firewall import own

NAME = "ufw"
STOP = "ufw disable"
_CONF = "/etc/ufw/ufw.conf"

ASK = Ask(files=(_CONF,))

resources, replaced = partial(own.resources, NAME), partial(own.replaced, NAME)
absent, warnings = partial(own.absent, NAME), own.warnings


def is_in_charge(facts: Facts) -> bool:
    """Whether ufw is enabled. Its unit becomes active at the next boot only."""
    conf = facts.files.get(_CONF)
    text = (conf.content or "") if conf is not None else ""
    return re.search(r"^ENABLED=[\"']?yes\b", text, re.M | re.I) is not None


def refusals(host: Host, facts: Facts, neighbours: Neighbours) -> list[str]:
    """Return a sentence if ufw is not active, and for each protocol that has no port."""
    start = "".join(f"ufw allow {port}/tcp && " for port in facts.ssh_ports) + "ufw --force enable"
    return own.refusals(NAME, host, in_charge=is_in_charge(facts), start=start)
