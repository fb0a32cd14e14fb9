"""firewall, through the program that holds the host's rules."""

import hashlib
import json
import os
import subprocess
import sys
import time

from agent.kind import Kind
from agent.nft import Nft
from agent.paths import text_diff
from agent.tools import Failed, read_text, remove, run, sha256_of, source_of, write_atomically


class NftTable(Kind):
    """Our rules. Those that are armed are taken back unless a second connection confirms them.

    The family prints rules in its own words. The text that it prints right after loading is kept,
    to find drift later.
    """

    def __init__(self, spec, host):
        Kind.__init__(self, spec, host)
        self.family = Nft(spec["table"])

    def wanted(self):
        if not self.spec["present"]:
            return {"rules": "absent", "loaded": "no"}
        return {"rules": self.spec["content_sha256"], "loaded": "yes"}

    def present(self):
        rules = sha256_of(self.path) if os.path.isfile(self.path) else "absent"
        if not self.spec["present"]:
            return {"rules": rules, "loaded": "yes" if self._listed() else "no"}
        is_loaded = read_text(self._state()).strip() == self._digest()
        return {"rules": rules, "loaded": "yes" if is_loaded else "no"}

    def _listed(self):
        return self.host.answers.of(self.family.listed)

    def _digest(self):
        return hashlib.sha256(self._listed().encode()).hexdigest()

    def _state(self):
        return "%s/firewall-%s" % (self.host.journal.base, self.spec["table"])

    def blobs(self):
        if not self.spec["present"] or self.present() == self.wanted():
            return []
        return [self.spec["content_sha256"]]

    def shown_blobs(self):
        return self.blobs()

    def text_diff(self):
        if not self.spec["present"]:
            return ""
        return text_diff(self.path, self._new_rules(), self.spec["path"])

    def _new_rules(self):
        return self.host.blob(self.spec["content_sha256"])

    def given_back(self, was):
        return dict(self.spec, present=False) if was["rules"] == "absent" else None

    def fix(self, keys):
        if not self.spec["present"]:
            return self._remove(keys)
        self.family.check(self._new_rules())
        # Rules of a generation were confirmed once, and now nobody may be there to do it.
        is_armed = self.spec["revert_after_s"] and not self.host.is_going_back
        armed = self._arm() if is_armed else None
        self.family.load(self._new_rules())
        if armed is not None:
            try:
                self._await_confirmation(*armed)
            finally:
                self._forget_before()
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        write_atomically(self.path, self._new_rules(), 0o644, (os.getuid(), os.getgid()))
        with open(self._state(), "w") as file:
            file.write(self._digest())

    def _remove(self, keys):
        """Remove rules, file and state. That closes no port, so no confirmation is asked for."""
        if "loaded" in keys:
            self.family.delete()
        remove(self.path)
        remove(self._state())
        self._forget_before()

    def _token(self):
        """Return the path of the file that says that the rules are not confirmed."""
        return "%s/run/derpfleet/armed-%s" % (self.host.root, self.spec["table"])

    def _saved(self):
        """Return the path of the rules of before, while they may have to come back."""
        return "%s/run/derpfleet/before-%s" % (self.host.root, self.spec["table"])

    def _forget_before(self):
        """Remove what a confirmation needs, unless the rules still wait for it."""
        if not os.path.exists(self._token()):
            remove(self._saved())
            remove(self._token() + ".reverted")

    def _arm(self):
        """Start the process that brings the rules of now back. Return its token and commands.

        The process runs them after `revert_after_s`, unless the token is gone by then.
        """
        old, run_id = self._listed(), self.host.journal.run_id
        token, saved = self._token(), self._saved()
        os.makedirs(os.path.dirname(token), mode=0o700, exist_ok=True)
        remove(token + ".reverted")
        for path, text in ((saved, old), (token, run_id)):
            with open(path, "w") as file:
                file.write(text)
        commands = self.family.way_back(saved, old)
        words = [token, str(self.spec["revert_after_s"]), run_id, json.dumps(commands)]
        argv = [sys.executable, "-I", "-c", source_of("revert")] + words
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.Popen(argv, start_new_session=True, **quiet)
        return token, commands

    def _await_confirmation(self, token, commands):
        """Ask for a second connection, which removes the token. Raises Failed without one.

        Nobody makes one when the controller is gone: the commands are run at once then.
        """
        wait_s, wire = self.spec["revert_after_s"], self.host.wire
        wire.send("confirm", id=self.id, path=token, within_s=wait_s)
        deadline = time.monotonic() + wait_s + 5
        while os.path.exists(token) and time.monotonic() < deadline:
            if wire.is_alone:
                remove(token)
                for argv in commands:
                    run(argv)
                raise Failed("the new rules were taken back", wire.stopped)
            time.sleep(0.02)
        if os.path.exists(token + ".reverted") or os.path.exists(token):
            why = "no second connection got in within %d s: they would have locked us out" % wait_s
            raise Failed("the new rules were taken back", why)
