"""ufw: the ports are an application profile of ours, and the rule that allows it."""

import re

from agent.tools import must, read_text, remove, run, write_text

NAME = "derpfleet"
PROFILE = """[derpfleet]
title=DERP relay
description=Written by derpfleet; changes are overwritten.
ports=%s
"""
# A line for each port of the profile: in ufw's own state, which is the same when ufw is not active
# (ufw: backend_iptables.py, _write_rules), and in the kernel's rules.
SAVED = re.compile(r"^### tuple ### allow (tcp|udp) ([\d:]+) \S+ any \S+ derpfleet - in(?: |$)", re.M)
LOADED = re.compile(
    r"^-A ufw6?-user-input -p (tcp|udp) .*--dports? ([\d:]+) .*dapp_derpfleet.* -j ACCEPT$", re.M
)
# The file with ufw's state, and the program that prints the kernel's rules. `iptables -S` would
# make the table that it is asked for.
FAMILIES = {"IPv4": ("user.rules", "iptables-save"), "IPv6": ("user6.rules", "ip6tables-save")}


class Ufw:
    """The profile, and the rules that ufw has made of it."""

    PROGRAM = "ufw"

    def __init__(self, root, note):
        self.root, self.note = root, note
        self.profile = root + "/etc/ufw/applications.d/" + NAME

    def wanted(self, ports):
        text = " ".join(ports)
        has_ipv6 = re.search(r"^IPV6=[\"']?yes", read_text(self.root + "/etc/default/ufw"), re.M)
        found = {"profile": text}
        for family in FAMILIES:
            found[family] = found[family + ", loaded"] = text if family == "IPv4" or has_ipv6 else ""
        return found

    def present(self, ports):
        line = re.search(r"^ports=(.*)$", read_text(self.profile), re.M)
        found = {"profile": line.group(1).replace("|", " ").replace(":", "-") if line else ""}
        for family in FAMILIES:
            found[family] = " ".join(ports_in(SAVED, self._saved(family)))
            found[family + ", loaded"] = " ".join(ports_in(LOADED, self._loaded(family)))
        return found

    def _saved(self, family):
        return read_text("%s/etc/ufw/%s" % (self.root, FAMILIES[family][0]))

    def _loaded(self, family):
        """Return the rules in the kernel, or "" where ufw is not active."""
        return run([FAMILIES[family][1]])[1]

    def touches(self):
        return [self.profile]

    def fix(self, ports):
        """Replace our rule by deletion and addition.

        Over SSH `ufw app update` leaves the loaded rules as they are. A deletion loads ufw's own
        chains again; rules that others have put into iptables' chains stay.
        """
        if ports:
            self.note.write(ports)
        texts = [(SAVED, self._saved(family)) for family in FAMILIES]
        texts += [(LOADED, self._loaded(family)) for family in FAMILIES]
        ours = max((ports_in(*text) for text in texts), key=len)
        if ours:
            self._write(ours)
            # ufw deletes a rule only when both families have it, with the profile's ports of now.
            for verb in (["allow"], ["app", "update"], ["delete", "allow"]):
                must(["ufw"] + verb + [NAME])
        if ports:
            self._write(ports)
            must(["ufw", "allow", NAME])
        else:
            remove(self.profile)

    def _write(self, ports):
        write_text(self.profile, PROFILE % "|".join(port.replace("-", ":") for port in ports))


FAMILY = Ufw


def ports_in(form, text):
    """Return the ports and ranges with their protocols, sorted by protocol and number."""
    found = sorted((proto, int(port.partition(":")[0]), port) for proto, port in form.findall(text))
    return ["%s/%s" % (port.replace(":", "-"), proto) for proto, _, port in found]
