"""The orders of one certificate, kept on the host, against the limits of the authority.

Installed on hosts beside /opt/derpfleet/bin/certificate. Standard library only.

An authority that has given too many certificates for the same names, or has seen too many failed
challenges, refuses the next ones for hours or days. An order that would come to that is not made.
"""

import json
import os
import time

KEPT = 100  # entries
# The kinds of problems that an authority counts as a failed challenge (RFC 8555, section 6.7).
FAILED_CHALLENGES = ("caa", "connection", "dns", "incorrectResponse", "unauthorized")
WORDS = {
    "issued": "certificates for the same names were ordered",
    "failed": "orders failed because of their challenges",
}


class Ledger:
    """The file `path`, and a server's limits: {"issued" or "failed": [count, seconds]}.

    Orders at other servers are kept as well, and do not count against these limits.
    """

    def __init__(self, path, server, limits):
        self.path, self.server, self.limits = path, server, limits

    def entries(self):
        """Return the orders, oldest first. A file that cannot be read is as good as none."""
        try:
            with open(self.path) as file:
                found = json.load(file)
            return [entry for entry in found if set(entry) == {"at", "server", "names", "outcome"}]
        except (OSError, TypeError, ValueError):
            return []

    def names(self):
        """Return every name that was ever on a certificate of ours."""
        return {name for entry in self.entries() for name in entry["names"] if entry["outcome"] == "issued"}

    def order(self, names, outcome):
        """Return an entry without its time."""
        return {"server": self.server, "names": sorted(names), "outcome": outcome}

    def note(self, names, outcome):
        """Add an order: "issued" or "failed"."""
        entries = self.entries()
        entries.append(dict(self.order(names, outcome), at=int(time.time())))
        os.makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        with open(self.path + ".new", "w") as file:
            json.dump(entries[-KEPT:], file)
        os.replace(self.path + ".new", self.path)

    def refusal(self, names):
        """Return why the next order has to wait, and until when, or "".

        Each limit is a bucket of `count` orders, which come back one by one within the seconds.
        """
        now = time.time()
        for outcome, (count, seconds) in sorted(self.limits.items()):
            order, full = self.order(names, outcome), 0
            same = [entry["at"] for entry in self.entries() if dict(entry, **order) == entry]
            past = [at for at in same if at <= now]
            for at in past:
                full = max(full, at) + seconds / count  # then the bucket is full again
            possible = full - seconds + seconds / count
            if possible > now:
                until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(possible + 60))
                recent = [at for at in past if at > now - seconds]
                words = "no certificate was ordered: %d %s within %d hours, and the authority would refuse "
                words += "more\nchange: nothing; the next order is possible after %s UTC. Or set "
                words += "certificate.source to letsencrypt-staging while you look for the reason"
                return words % (len(recent), WORDS[outcome], seconds // 3600, until)
        return ""
