"""sysctl."""

import os
import re

from agent.kind import Kind
from agent.tools import Failed, read_text, remove, write_text


class Sysctl(Kind):
    def wanted(self):
        if not self.spec["present"]:
            live = {"value": self.spec["value"]} if self.spec["value"] else {}
            return dict(live, file="absent")
        return {"value": self.spec["value"], "at boot": self.spec["value"]}

    def present(self):
        saved = re.search(r"^\S+\s*=\s*(.*)$", read_text(self.touches()[0]), re.M)
        value = " ".join(read_text(self._live()).split())
        there = "present" if os.path.lexists(self.touches()[0]) else "absent"
        return {"value": value, "at boot": saved.group(1) if saved else "", "file": there}

    def _live(self):
        return self.host.root + "/proc/sys/" + self.spec["key"].replace(".", "/")

    def touches(self):
        return ["%s/etc/sysctl.d/60-derpfleet-%s.conf" % (self.host.root, self.spec["key"])]

    def given_back(self, was):
        if was["at boot"]:
            return dict(self.spec, value=was["at boot"])
        return dict(self.spec, present=False, value=was["value"])

    def fix(self, keys):
        if "value" in keys:
            try:
                with open(self._live(), "w") as file:
                    file.write(self.spec["value"])
            except OSError as error:
                raise Failed("%s cannot be set to %s" % (self.spec["key"], self.spec["value"]), str(error))
        if not self.spec["present"]:
            return remove(self.touches()[0])
        os.makedirs(os.path.dirname(self.touches()[0]), exist_ok=True)
        write_text(self.touches()[0], "%s = %s\n" % (self.spec["key"], self.spec["value"]))
