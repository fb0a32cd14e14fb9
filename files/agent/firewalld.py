"""firewalld: ports in its zones, at run time and permanently.

It is never reloaded: that would throw away what others have opened at run time only.
"""

import re

from agent.tools import Failed, read_text, run, tail

LIMIT_S = 20
NO_ZONE, NO_SUCH_ZONE, NOT_RUNNING = 2, 112, 252  # firewall-cmd(1), exit codes
PORTS = re.compile(r"(\d+)(?:-(\d+))?/(tcp|udp|sctp|dccp)")
IN = " in zone "
ONLINE = {"at run time": ["firewall-cmd"], "permanently": ["firewall-cmd", "--permanent"]}
OFFLINE = {"permanently": ["firewall-offline-cmd"]}


class Firewalld:
    """The ports that we opened, by place: `at run time in zone public`.

    A port that was open before us is not ours, and not noted.
    """

    PROGRAM = "firewall-cmd"

    def __init__(self, root, note):
        self.root, self.note = root, note
        self.scopes, self.zones = OFFLINE, []

    def wanted(self, ports):
        self._look_around(ports)
        return {place: " ".join(self._wanted(place, ports)) for place in self._places()}

    def present(self, ports):
        found = {}
        for place in self._places():
            opened, ours = self._opened(place), self._ours(place)
            shown = [port for port in self._wanted(place, ports) if numbers([port]) <= opened]
            found[place] = " ".join(shown + ranges((ours & opened) - numbers(shown)))
        return found

    def _look_around(self, ports):
        """Find out whether firewalld runs, and the zones of the interfaces to the internet.

        Raises Failed when ports are wanted of one that does not run.
        """
        status, default, _ = ask(["firewall-cmd", "--get-default-zone"], (NOT_RUNNING,))
        if status == 0:
            self.scopes = ONLINE
        elif ports:
            raise Failed("firewalld is not running", "start it, or set firewall.mode to auto")
        if ports:
            links = default_links(self.root)
            self.zones = sorted({self._zone_of(link) or default.strip() for link in links or [""]})

    def _zone_of(self, link):
        """Return the zone of an interface, or "" when it has none of its own."""
        if not link:
            return ""
        status, zone, _ = ask(["firewall-cmd", "--get-zone-of-interface=" + link], (NO_ZONE,))
        return "" if status else zone.strip()

    def _places(self):
        """Return the places that have ports of ours, or are to have some."""
        here = {scope + IN + zone for scope in self.scopes for zone in self.zones}
        return sorted(here | {place for place in self.note.read() if place.partition(IN)[0] in self.scopes})

    def _wanted(self, place, ports):
        return ports if place.partition(IN)[2] in self.zones else []

    def _ours(self, place):
        return numbers(self.note.read().get(place, []))

    def _opened(self, place):
        """Return the {(protocol, port), ...} that are open. A zone that is gone has none."""
        status, out, _ = ask(self._argv(place) + ["--list-ports"], (NO_SUCH_ZONE,))
        return set() if status else numbers(out.split())

    def _argv(self, place):
        scope, _, zone = place.partition(IN)
        return self.scopes[scope] + ["--zone=" + zone]

    def touches(self):
        return []

    def fix(self, ports):
        for place in self._places():
            wanted, opened, ours = numbers(self._wanted(place, ports)), self._opened(place), self._ours(place)
            lacking = wanted - opened
            self._keep(place, ours | lacking)
            self._change(place, "--add-port=", lacking)
            self._change(place, "--remove-port=", (ours - wanted) & opened)
            self._keep(place, (ours & wanted) | lacking)

    def _change(self, place, option, ports):
        if ports:
            ask(self._argv(place) + [option + port for port in ranges(ports)])

    def _keep(self, place, ports):
        noted = dict(self.note.read(), **{place: ranges(ports)})
        self.note.write({place: ports for place, ports in noted.items() if ports})


FAMILY = Firewalld


def default_links(root):
    """Return the interfaces that have a default route."""
    found = set()
    for line in read_text(root + "/proc/net/route").splitlines():
        link, target = line.split()[:2]
        found.update([link] if target == "00000000" else [])
    for line in read_text(root + "/proc/net/ipv6_route").splitlines():
        target, length, *_, link = line.split()
        found.update([link] if (target, length) == ("0" * 32, "00") else [])
    return sorted(found - {"lo"})


def ask(argv, other=()):
    """Run a command that ends with 0 or one of `other`. Returns `run`'s. Raises Failed."""
    status, out, err = run(argv, LIMIT_S)
    if status == 124:
        why = "firewalld, D-Bus or polkit hangs: run on the host: systemctl status firewalld polkit dbus"
        raise Failed("%s gave no answer in %d s" % (" ".join(argv[:3]), LIMIT_S), why)
    if status and status not in other:
        raise Failed("%s ended with status %d" % (" ".join(argv[:4]), status), tail(err or out))
    return status, out, err


def numbers(ports):
    """Return {(protocol, port), ...} of ports and ranges, as 443/tcp or 60000-61000/udp.

    Raises Failed.
    """
    found = set()
    for entry in ports:
        match = PORTS.fullmatch(entry)
        if not match:
            raise Failed("firewalld's answer makes no sense", "%r is no port" % entry[:80])
        first, last, proto = match.groups()
        found.update((proto, port) for port in range(int(first), int(last or first) + 1))
    return found


def ranges(ports):
    """Return the ports as firewalld writes them, neighbours as one range."""
    found = []
    for proto, port in sorted(ports):
        if found and found[-1][0] == proto and found[-1][2] == port - 1:
            found[-1][2] = port
        else:
            found.append([proto, port, port])
    return ["%d%s/%s" % (first, "-%d" % last if last > first else "", proto) for proto, first, last in found]
