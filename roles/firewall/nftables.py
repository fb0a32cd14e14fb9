"""One nftables table of our own: what the relay needs is open, what the site file allows is open, all else is closed."""

from __future__ import annotations

from engine.facts import Ask, Facts
from engine.render import render
from engine.resource import Absent, File, Firewall, Package, Resource, Service
from inventory.model import Host
from roles import paths, ports, sites
from roles.readers import iptables
from roles.wiring import wire

_UNIT = "derpfleet-firewall.service"
_UNIT_FILE = f"{paths.SYSTEMD}/{_UNIT}"
_UFW = "/etc/ufw/ufw.conf"

# iptables-save, and without a table's name: it prints what is there, where `iptables -S` makes or loads the table that it is asked for.
_SAVED = {"iptables": ("iptables-save",), "ip6tables": ("ip6tables-save",)}

ASK = Ask(files=(paths.FIREWALL_RULES, _UFW), commands={"firewalld": ("systemctl", "is-active", "firewalld.service"), **_SAVED})


def resources(host: Host, facts: Facts) -> list[Resource]:
    opened = open_ports(host, facts)
    tcp, udp = ([port for proto, port in opened if proto == wanted] for wanted in ("tcp", "udp"))
    firewall = Firewall(
        table="derpfleet",
        path=paths.FIREWALL_RULES,
        rules=render("firewall.nft.j2", tcp=tcp, udp=udp),
        revert_after_s=host.firewall.revert_after_s,
        needs=("package:nftables",),
    )
    unit = File(path=_UNIT_FILE, content=render("firewall.service.j2", rules=paths.FIREWALL_RULES))
    return [Package(package="nftables"), firewall, unit, Service(unit=_UNIT, needs=(firewall.id,))]


def absent() -> list[Resource]:
    """Return what takes our table away: its unit's stop does."""
    return [
        Service(unit=_UNIT, enabled=False, running=False),
        Absent(path=_UNIT_FILE),
        Absent(path=paths.FIREWALL_RULES),
    ]


def open_ports(host: Host, facts: Facts) -> list[tuple[str, str]]:
    """(protocol, port or range) of what is let in from outside: ssh as in use, the relay's, nginx's other sites, the site file's."""
    found = {("tcp", str(port)) for port in facts.ssh_ports}
    found |= {(use.proto, str(use.port)) for use in wire(host).uses if use.public}
    found |= {(proto, str(port)) for proto, port in sites.public_ports(facts)}
    for entry in host.firewall.allow:
        port, _, proto = entry.partition("/")
        found.add((proto, port))
    return sorted(found, key=lambda item: (item[0], int(item[1].partition("-")[0])))


def refusals(host: Host, facts: Facts) -> list[str]:
    found = [_other_firewall(host, facts, name) for name in _active_firewalls(facts)] or _own_rules(host, facts)
    if paths.FIREWALL_RULES not in facts.files:  # the first time: afterwards all else is closed already
        for listener in ports.strangers(host, facts, _single_ports(open_ports(host, facts))):
            entry = f"{listener.port}/{listener.proto}"
            found.append(
                f"{ports.who(listener)} listens on {entry} of {host.name}, which the firewall would close: add {entry} to "
                f"hosts.{host.name}.firewall.allow, stop that program, or set firewall.mode to off."
            )
    return found


def warnings(host: Host, facts: Facts) -> list[str]:
    if paths.FIREWALL_RULES in facts.files:
        return []
    return [
        f"{ports.who(listener)} has {listener.port}/udp open: if others speak to it first, add {listener.port}/udp to "
        f"hosts.{host.name}.firewall.allow, for the firewall lets in only answers to what it asked itself"
        for listener in ports.maybe_servers(facts, _single_ports(open_ports(host, facts)))
    ]


def _active_firewalls(facts: Facts) -> list[str]:
    ufw, firewalld = facts.files.get(_UFW), facts.commands.get("firewalld")
    found = []
    if ufw is not None and "ENABLED=yes" in (ufw.content or ""):  # its unit is active from the next boot on only
        found.append("ufw")
    if firewalld is not None and firewalld.status == 0:
        found.append("firewalld")
    return found


def _other_firewall(host: Host, facts: Facts, name: str) -> str:
    opened = [f"{port}/{proto}" for proto, port in open_ports(host, facts)]
    if name == "ufw":
        disable, allow = "ufw disable", " && ".join(f"ufw allow {entry.replace('-', ':')}" for entry in opened)
    else:
        disable = "systemctl disable --now firewalld"
        allow = "firewall-cmd --permanent " + " ".join(f"--add-port={entry}" for entry in opened) + " && firewall-cmd --reload"
    return (
        f"{name} is active on {host.name}, and two firewalls would close each other's ports. Either keep {name}: set "
        f"hosts.{host.name}.firewall.mode to off and run on the host: {allow}. Or let derpfleet do it: run on the host: {disable}."
    )


def _own_rules(host: Host, facts: Facts) -> list[str]:
    """For each of the host's address families whose iptables closes what the relay needs: what opens it."""
    wiring = wire(host)
    needed = [use for use in wiring.uses if use.public and not (wiring.relay_is_published and use.program == "relay")]
    found = []
    for program in _SAVED if host.ipv6 else ("iptables",):
        output = facts.commands.get(program)
        closed = [use for use in needed if output is not None and iptables.closes(output.stdout, use.proto, use.port)]
        if closed:
            opening = " && ".join(f"{program} -I INPUT -p {use.proto} --dport {use.port} -j ACCEPT" for use in closed)
            found.append(
                f"The rules of {host.name}'s own {program} close {', '.join(f'{use.port}/{use.proto}' for use in closed)}, whatever "
                f"derpfleet's table lets in. Run on the host: {opening}; and to keep that over a reboot, where the package "
                f"iptables-persistent loads them: netfilter-persistent save. Or set hosts.{host.name}.firewall.mode to off, and see to it."
            )
    return found


def _single_ports(opened: list[tuple[str, str]]) -> set[tuple[str, int]]:
    found = set()
    for proto, entry in opened:
        first, _, last = entry.partition("-")
        found |= {(proto, port) for port in range(int(first), int(last or first) + 1)}
    return found
