"""The usage of a process and its children: CPU seconds and resident memory, from the kernel."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """One reading.

    `cpu_s` counts user and system time of every thread, ended ones included; `rss` is bytes.
    """

    cpu_s: float
    rss: int


def tree(pid: int) -> Iterator[int]:
    """Yield `pid` and the processes below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from tree(int(child))


def read(pid: int) -> Usage:
    """Read the usage of `pid` and its children. Raises OSError when it has ended."""
    pids = list(tree(pid))
    # /proc/<pid>/stat shows the process's CPU clock (clock_getcpuclockid(3)) in ticks of 10 ms;
    # here it is read in ns.
    cpu = sum(time.clock_gettime((~p << 3) | 2) for p in pids)
    rss = _resident(pid) if len(pids) == 1 else sum(_share(p) for p in pids)
    return Usage(cpu, rss)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _share(pid: int) -> int:
    """Return the resident bytes of `pid`, with pages that several processes map divided between
    them."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
