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
from roles.contract import Neighbours, after
from roles.wiring import Use, Wiring

NOTES = Ask(files=(f"{paths.AGENT}/opened-*",))
"""The agent's notes of ports that are open in such a firewall."""


@dataclass(frozen=True, kw_only=True)
class HostsOwn:
    """A firewall that the host may have of its own. It fits `roles.firewall.contract.Guard`.

    `name`: as in the site file. `ASK`: the facts that `is_in_charge` needs. `is_in_charge`: whether
    it decides now which packets come in. The commands for people: `stop` takes it out of charge,
    `allow_ssh` lets a port in that is in the braces, `allow_from` lets a source in, `start` puts it
    in charge.
    """

    name: FirewallModeName
    ASK: Ask
    is_in_charge: Callable[[Facts], bool]
    stop: str
    allow_ssh: str
    allow_from: str
    start: str

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

    def warnings(self, host: Host, wiring: Wiring, facts: Facts, neighbours: Neighbours) -> list[str]:
        """Return a sentence for a port that is for some addresses only, which we do not open."""
        return [
            f"{use.key} of {host.name} is for {', '.join(use.sources)} only, and derpfleet opens no port of "
            f"{self.name} for some addresses: if it is closed there, run on the host: "
            + " && ".join(self._allowed(use, source) for source in use.sources)
            for use in wiring.uses
            if use.sources
        ]

    def _allowed(self, use: Use, source: str) -> str:
        family = "ipv6" if ":" in source else "ipv4"
        return self.allow_from.format(source=source, family=family, port=use.port, proto=use.proto)

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
        allow_from="ufw allow from {source} to any port {port} proto {proto}",
        start="ufw --force enable",
    ),
    HostsOwn(
        name="firewalld",
        ASK=Ask(commands={"firewalld": ("systemctl", "is-active", "firewalld.service")}),
        is_in_charge=_firewalld_runs,
        stop="systemctl disable --now firewalld",
        allow_ssh="firewall-offline-cmd --add-port={}/tcp",
        allow_from=(
            "for more in '' --permanent; do firewall-cmd $more --add-rich-rule='rule family={family} "
            "source address={source} port port={port} protocol={proto} accept'; done"
        ),
        start="systemctl enable --now firewalld",
    ),
)
