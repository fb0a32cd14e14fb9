"""open_ports, through a firewall of the host's own: the module that has its name has its FAMILY."""

import json
import os
import shutil
import sys

from agent.kind import Kind
from agent.tools import read_text, remove, write_text


class OpenPorts(Kind):
    """The ports that the host's own firewall lets in for us. Its other rules stay.

    A note of them is written first, so that a removal takes these and nothing else. The controller
    looks for the note, too.
    """

    def __init__(self, spec, host):
        Kind.__init__(self, spec, host)
        family = sys.modules["agent." + spec["through"]].FAMILY
        self.family = family(host.root, Note(host.journal.base, spec["through"]))

    def wanted(self):
        ports = self.spec["ports"]
        if self._is_moot():
            return {}
        return dict(self.family.wanted(ports), note="there" if ports else "absent")

    def present(self):
        if self._is_moot():
            return {}
        noted = os.path.exists(self.family.note.path)
        return dict(self.family.present(self.spec["ports"]), note="there" if noted else "absent")

    def _is_moot(self):
        """Whether that firewall is not installed, and so lets nothing in.

        The note stays for the day when it is installed again.
        """
        return not self.spec["ports"] and not shutil.which(self.family.PROGRAM)

    def touches(self):
        return self.family.touches()

    def given_back(self, was):
        return dict(self.spec, ports=[])

    def fix(self, keys):
        os.makedirs(os.path.dirname(self.family.note.path), mode=0o700, exist_ok=True)
        self.family.fix(self.spec["ports"])
        if not self.spec["ports"]:
            remove(self.family.note.path)


class Note:
    """The note of one firewall: the ports that we opened, as JSON on disk."""

    def __init__(self, base, through):
        self.path = "%s/opened-%s" % (base, through)

    def read(self):
        """Return the noted value, or {}."""
        try:
            return json.loads(read_text(self.path))
        except ValueError:
            return {}

    def write(self, value):
        write_text(self.path, json.dumps(value, sort_keys=True) + "\n")
