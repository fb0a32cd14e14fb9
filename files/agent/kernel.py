"""sysctl, firewall."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time

from agent.kind import Kind
from agent.paths import text_diff
from agent.tools import Failed, must, read_text, remove, run, sha256_of, write_atomically


class Sysctl(Kind):
    def wanted(self):
        return {"value": self.spec["value"], "at boot": self.spec["value"]}

    def present(self):
        saved = re.search(r"^\S+\s*=\s*(.*)$", read_text(self.touches()[0]), re.M)
        return {"value": " ".join(read_text(self._live()).split()), "at boot": saved.group(1) if saved else ""}

    def _live(self):
        return self.host.root + "/proc/sys/" + self.spec["key"].replace(".", "/")

    def touches(self):
        return ["%s/etc/sysctl.d/60-derpfleet-%s.conf" % (self.host.root, self.spec["key"])]

    def fix(self, keys):
        if "value" in keys:
            try:
                with open(self._live(), "w") as file:
                    file.write(self.spec["value"])
            except OSError as error:
                raise Failed("%s cannot be set to %s" % (self.spec["key"], self.spec["value"]), str(error))
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("%s = %s\n" % (self.spec["key"], self.spec["value"]))
            file.flush()
            os.makedirs(os.path.dirname(self.touches()[0]), exist_ok=True)
            write_atomically(self.touches()[0], file.name, 0o644, (os.getuid(), os.getgid()))


class Firewall(Kind):
    """One table of ours. nft prints rules in its own words, so what it printed right after loading is kept, to find drift later."""

    REVERT = (
        "import os,subprocess,sys,time\n"
        "token,old,table,wait,run=sys.argv[1:6]\n"
        "time.sleep(float(wait))\n"
        "if os.path.exists(token) and open(token).read()==run:\n"  # else a run that was killed had armed us
        "    subprocess.call(['nft','delete','table','inet',table])\n"
        "    if os.path.getsize(old): subprocess.call(['nft','-f',old])\n"
        "    os.rename(token,token+'.reverted')\n"
    )

    def wanted(self):
        return {"rules": self.spec["content_sha256"], "loaded": "yes"}

    def present(self):
        rules = sha256_of(self.path) if os.path.isfile(self.path) else "absent"
        listed = hashlib.sha256(self._listed().encode()).hexdigest()
        return {"rules": rules, "loaded": "yes" if read_text(self._state()).strip() == listed else "no"}

    def _listed(self):
        return run(["nft", "--stateless", "list", "table", "inet", self.spec["table"]])[1]

    def _state(self):
        return "%s/firewall-%s" % (self.host.journal.base, self.spec["table"])

    def blobs(self):
        return [self.spec["content_sha256"]] if self.present() != self.wanted() else []

    def shown_blobs(self):
        return self.blobs()

    def text_diff(self):
        return text_diff(self.path, self.host.blob(self.spec["content_sha256"]), self.spec["path"])

    def fix(self, keys):
        must(["nft", "--check", "--file", self.host.blob(self.spec["content_sha256"])])
        old = self._listed()
        folder, run_id = self.host.root + "/run/derpfleet", self.host.journal.run_id
        os.makedirs(folder, mode=0o700, exist_ok=True)
        token, saved = "%s/armed-%s" % (folder, self.spec["table"]), "%s/before-%s.nft" % (folder, self.spec["table"])
        remove(token + ".reverted")
        for path, text in ((saved, old), (token, run_id)):
            with open(path, "w") as file:
                file.write(text)
        wait_s = self.spec["revert_after_s"]
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reverter = [sys.executable, "-I", "-c", self.REVERT, token, saved, self.spec["table"], str(wait_s), run_id]
        subprocess.Popen(reverter, start_new_session=True, **quiet)
        must(["nft", "--file", self.host.blob(self.spec["content_sha256"])])
        self.host.wire.send("confirm", id=self.id, path=token, within_s=wait_s)
        deadline = time.monotonic() + wait_s + 5
        while os.path.exists(token) and time.monotonic() < deadline:
            time.sleep(0.02)
        if os.path.exists(token + ".reverted") or os.path.exists(token):
            raise Failed(
                "the new rules were taken back", "no second connection got in within %d s: they would have locked us out" % wait_s
            )
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        write_atomically(self.path, self.host.blob(self.spec["content_sha256"]), 0o644, (os.getuid(), os.getgid()))
        with open(self._state(), "w") as file:
            file.write(hashlib.sha256(self._listed().encode()).hexdigest())
