"""The firewalls that a host may have of its own: ufw and firewalld. Each is a row of `FIREWALLS`.

They are in charge before us, and have rules of others. We only open ports there, and close those
again (files/agent/open_ports.py, and the module there that has the firewall's name).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.facts import Ask, Facts
from engine.resource import OpenPorts, Resource
from inventory.choices import FirewallModeName
from inventory.model import Host
from roles import paths
from roles.contract import Neighbours, after, nothing
from roles.wiring import Wiring

NOTES = Ask(files=(f"{paths.AGENT}/opened-*",))
"""The agent's notes of ports that are open in such a firewall."""


@dataclass(frozen=True, kw_only=True)
class HostsOwn:
    """A firewall that the host may have of its own. It fits `roles.firewall.contract.Guard`.

    `name`: as in the site file. `ASK`: the facts that `is_in_charge` needs. `is_in_charge`: whether
    it decides now which packets come in. The commands for people: `stop` takes it out of charge,
    `allow_ssh` lets a port in that is in the braces, `start` puts it in charge.
    """

    name: FirewallModeName
    ASK: Ask
    is_in_charge: Callable[[Facts], bool]
    stop: str
    allow_ssh: str
    start: str

    warnings = staticmethod(nothing)  # it closes no port for us

    def resources(self, host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[Resource]:
        """Return the opening of the relay's public ports and the site file's.

        SSH and the host's other programs are let in by its own rules, or are not meant to be.
        """
        found = {f"{use.port}/{use.proto}" for use in wiring.uses if use.public}
        found |= {entry for entry in host.firewall.allow if not _has_no_port(entry)}
        return [OpenPorts(through=self.name, ports=tuple(sorted(found, key=_order)))]

    def replaced(self, facts: Facts) -> list[Resource]:
        """Return the removal of what we opened, if we did."""
        there = f"{paths.AGENT}/opened-{self.name}" in facts.files
        return [OpenPorts(through=self.name)] if there else []

    def absent(self, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return the removal of all that we may have opened, after `needs`."""
        return after(needs, [OpenPorts(through=self.name)])

    def refusals(self, host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
        """Return a sentence if it is not in charge, and for each protocol that has no port."""
        found = []
        if not self.is_in_charge(facts):
            start = " && ".join([*(self.allow_ssh.format(port) for port in facts.ssh_ports), self.start])
            found.append(
                f"{self.name} is not active on {host.name}, and derpfleet starts no firewall that could lock "
                f"you out: run on the host: {start}. Or set hosts.{host.name}.firewall.mode to auto, which "
                "uses the one that is active, else derpfleet's own table."
            )
        found += [
            f"hosts.{host.name}.firewall.allow has {entry}, a protocol without ports, which derpfleet does "
            f"not open in {self.name}: allow it there, and take {entry} out of the site file."
            for entry in host.firewall.allow
            if _has_no_port(entry)
        ]
        return found


def _order(entry: str) -> tuple[str, int]:
    numbers, _, proto = entry.partition("/")
    return proto, int(numbers.partition("-")[0])


def _has_no_port(entry: str) -> bool:
    return entry.endswith("/ip")


_UFW_CONF = "/etc/ufw/ufw.conf"


def _ufw_is_enabled(facts: Facts) -> bool:
    """Whether ufw is enabled. Its unit becomes active at the next boot only."""
    conf = facts.files.get(_UFW_CONF)
    text = (conf.content or "") if conf is not None else ""
    return re.search(r"^ENABLED=[\"']?yes\b", text, re.M | re.I) is not None


def _firewalld_runs(facts: Facts) -> bool:
    state = facts.commands.get("firewalld")
    return state is not None and state.stdout.strip() == "active"


FIREWALLS = (
    HostsOwn(
        name="ufw",
        ASK=Ask(files=(_UFW_CONF,)),
        is_in_charge=_ufw_is_enabled,
        stop="ufw disable",
        allow_ssh="ufw allow {}/tcp",
        start="ufw --force enable",
    ),
    HostsOwn(
        name="firewalld",
        ASK=Ask(commands={"firewalld": ("systemctl", "is-active", "firewalld.service")}),
        is_in_charge=_firewalld_runs,
        stop="systemctl disable --now firewalld",
        allow_ssh="firewall-offline-cmd --add-port={}/tcp",
        start="systemctl enable --now firewalld",
    ),
)
