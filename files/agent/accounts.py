"""group, user."""

import grp
import os
import pwd

from agent.kind import Kind
from agent.tools import must


class Group(Kind):
    def wanted(self):
        return {"exists": "yes" if self.spec["present"] else "no"}

    def present(self):
        try:
            grp.getgrnam(self.spec["group"])
        except KeyError:
            return {"exists": "no"}
        return {"exists": "yes"}

    def fix(self, keys):
        program = ["groupadd", "--system"] if self.spec["present"] else ["groupdel"]
        must(program + [self.spec["group"]])


class User(Kind):
    def wanted(self):
        if not self.spec["present"]:
            return {"exists": "no"}
        return {"exists": "yes", "group": self.spec["group"], "home": self.spec["home"]}

    def present(self):
        try:
            entry = pwd.getpwnam(self.spec["user"])
        except KeyError:
            return {"exists": "no"}
        try:
            group = grp.getgrgid(entry.pw_gid).gr_name
        except KeyError:
            group = str(entry.pw_gid)
        return {"exists": "yes", "group": group, "home": entry.pw_dir}

    def fix(self, keys):
        spec = self.spec
        if not spec["present"]:
            must(["userdel", spec["user"]])
        elif "exists" in keys:
            shells = [path for path in ("/usr/sbin/nologin", "/sbin/nologin") if os.path.exists(path)]
            shell = (shells + ["/bin/false"])[0]
            options = ["--system", "--no-create-home", "--gid", spec["group"]]
            options += ["--home-dir", spec["home"], "--shell", shell]
            must(["useradd"] + options + [spec["user"]])
        else:
            must(["usermod", "--gid", spec["group"], "--home", spec["home"], spec["user"]])
