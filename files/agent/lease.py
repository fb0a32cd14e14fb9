"""The lease of a site's rollouts: a session that holds a lock, and the rollout's ledger beside it.

One host of the site has it. The lock ends with its session, however that ends. Each lease has a
number above all earlier ones. It goes with every change of a rollout, and each host keeps the
highest that it has seen: a controller that was asleep meanwhile is refused there.
"""

import json
import os
import time

from agent import json_lines
from agent.tools import read_text, write_text


class Lease:
    """The lease that this session holds, as long as it keeps its lock."""

    def __init__(self, root, lock):
        self.lock = lock
        base = root + "/var/lib/derpfleet"
        os.makedirs(base, mode=0o700, exist_ok=True)
        self._number_path, self._ledger_path = base + "/lease", base + "/rollout.jsonl"
        known = int(read_text(self._number_path) or 0)
        # A host that was set up again has lost the number; the other hosts have not.
        self.number = max(known + 1, int(time.time()))
        write_text(self._number_path, str(self.number))

    def ledger(self):
        """Return the lines of the site's last rollout."""
        return json_lines.read(self._ledger_path)

    def note(self, lines, begins):
        """Write lines of the ledger to disk, or with `begins` those that begin a new ledger."""
        if begins:
            write_text(self._ledger_path, json_lines.text(lines))
        else:
            json_lines.append(self._ledger_path, lines)


def overtaken(root, number, who):
    """Return {"who": ..., "since": ...} of a rollout with a higher number; None without one.

    The number is kept then, for those that come later.
    """
    path = root + "/var/lib/derpfleet/fence"
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    known = json.loads(read_text(path) or '{"number": 0}')
    if number < known["number"]:
        return known
    if number > known["number"]:
        write_text(path, json.dumps({"number": number, "who": who, "since": time.time()}))
    return None
