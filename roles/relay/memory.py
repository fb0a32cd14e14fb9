"""The host's memory, for the limits of a relay. Pure."""

from __future__ import annotations

import re

from engine.facts import Ask, Facts

_FILE = "/proc/meminfo"
_STEP_MIB = 64

ASK = Ask(files=(_FILE,))


def share_mib(facts: Facts, percent: int) -> int | None:
    """Return this share of the host's memory in MiB, or None if the host does not say it.

    It is rounded down to 64 MiB: a new kernel that has a MiB more for itself restarts no relay.
    """
    known = facts.files.get(_FILE)
    total = re.search(r"^MemTotal:\s+(\d+) kB$", (known.content or "") if known else "", re.M)
    if total is None:
        return None
    return max(_STEP_MIB, int(total[1]) * percent // 100 // 1024 // _STEP_MIB * _STEP_MIB)
