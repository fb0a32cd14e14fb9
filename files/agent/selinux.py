"""selinux: booleans of the policy, labels of ports; and labels of the files that are written."""

import json
import os
import re
import shutil

from agent.kind import Kind
from agent.tools import must, read_text, remove, run

STATE = "/var/lib/derpfleet/selinux.json"
ENABLED = "/sys/fs/selinux/enforce"
WAIT_S = 300  # a change of the policy compiles all of it
PORT = ["semanage", "port"]


def restore_labels(paths):
    """Give files the labels that the policy has for their paths. Without SELinux nothing is done.

    A new file has its folder's label, with which systemd may refuse to run a program.
    """
    there = [path for path in paths if os.path.lexists(path)]
    if there and os.path.exists(ENABLED) and shutil.which("restorecon"):
        must(["restorecon", "-R"] + there)


class Selinux(Kind):
    """Booleans that are on, and TCP ports with labels.

    STATE lists the additions that the policy did not have before. The next run takes back those
    that are no longer wanted, and no others.
    """

    def wanted(self):
        booleans = {"boolean " + name: "on" for name in self.spec["booleans"]}
        ports = {"port %d" % port: label for label, port in self.spec["ports"]}
        return dict(booleans, **dict(ports, leftovers=""))

    def present(self):
        found = {"leftovers": ", ".join(self._leftovers())}
        for name in self.spec["booleans"]:
            found["boolean " + name] = run(["getsebool", name])[1].strip().rpartition(" ")[2]
        if self.spec["ports"]:
            listed = labelled_ports(run(PORT + ["--list", "--noheading"], WAIT_S)[1])
            for label, port in self.spec["ports"]:
                found["port %d" % port] = label if port in listed.get(label, ()) else ""
        return found

    def touches(self):
        return [self.host.root + STATE]

    def given_back(self, was):
        return dict(self.spec, booleans=[], ports=[])

    def fix(self, keys):
        added = self._added()
        for key in self._leftovers():
            take_back(*key.split())
            added.remove(key)
        for name in self.spec["booleans"]:
            if "boolean " + name in keys:
                must(["setsebool", "-P", name, "on"], WAIT_S)
                added.append("boolean " + name)
        for label, port in self.spec["ports"]:
            if "port %d" % port in keys:
                label_port(label, str(port))
                added.append("port %d" % port)
        self._note(added)

    def _leftovers(self):
        """Return the additions of earlier runs that are no longer wanted."""
        wanted = self.wanted()
        return [key for key in self._added() if key not in wanted]

    def _added(self):
        text = read_text(self.host.root + STATE)
        return json.loads(text) if text else []

    def _note(self, added):
        path = self.host.root + STATE
        if not added:
            return remove(path)
        with open(path + ".new", "w") as file:
            json.dump(sorted(set(added)), file)
        os.rename(path + ".new", path)


def take_back(kind, name):
    """Undo one of our additions. Raises Failed."""
    if kind == "boolean":
        must(["setsebool", "-P", name, "off"], WAIT_S)
    else:
        must(PORT + ["--delete", "--proto", "tcp", name], WAIT_S)


def label_port(label, port):
    """Label a port, also one that the policy has under another label. Raises Failed."""
    argv = ["--type", label, "--proto", "tcp", port]
    if run(PORT + ["--add"] + argv, WAIT_S)[0]:
        must(PORT + ["--modify"] + argv, WAIT_S)


def labelled_ports(text):
    """Return {label: {port, ...}} of the TCP ports that semanage lists."""
    found = {}
    for line in text.splitlines():
        parts = line.split(None, 2)
        if len(parts) == 3 and parts[1] == "tcp":
            for first, last in re.findall(r"(\d+)(?:-(\d+))?", parts[2]):
                found.setdefault(parts[0], set()).update(range(int(first), int(last or first) + 1))
    return found
