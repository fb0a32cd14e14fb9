"""A control group for each host, so that the service managers of several hosts never share one.

On a machine that runs systemd, systemd-nspawn asks systemd for one. Elsewhere (another process 1,
cgroup v1 or v2) they are made here, below the group of this process, so that its limits hold for
the hosts as well.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from lab.errors import LabError
from lab.topology import Topology

MOUNTED = Path("/sys/fs/cgroup")


def systemd_is_init() -> bool:
    """Whether systemd is process 1, by the test of sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def make(topology: Topology, part: str) -> list[Path]:
    """Make a folder in every hierarchy for this part's processes; none where systemd does that."""
    if systemd_is_init():
        return []
    made = []
    for hierarchy in own_groups(
        Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
    ):
        lab = hierarchy / topology.namespace
        for folder in (lab, lab / part):
            folder.mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                # v1: empty at first, and then no process may enter
                if (folder / setting).exists() and not (folder / setting).read_text().strip():
                    (folder / setting).write_text((folder.parent / setting).read_text())
        made.append(lab / part)
    return made


def remove(topology: Topology) -> None:
    """Remove the lab's groups, in any place of the hierarchies.

    Their processes must have ended. Raises LabError.
    """
    for place, folders, _ in os.walk(MOUNTED):
        if topology.namespace in folders:
            folders.remove(topology.namespace)
            for inner, _, _ in os.walk(Path(place) / topology.namespace, topdown=False):
                _remove(Path(inner))


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + 5
    while folder.is_dir():
        try:
            folder.rmdir()
        except OSError as error:  # a killed process leaves its group a moment later
            if time.monotonic() > deadline:
                raise LabError(f"the control group {folder} cannot be removed", why=str(error)) from None
            time.sleep(0.02)


def own_groups(mountinfo: str, memberships: str) -> list[Path]:
    """Return this process's groups, one in each mounted hierarchy.

    The arguments are the texts of /proc/self/mountinfo and /proc/self/cgroup (cgroups(7)).
    """
    own = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    groups = []
    for line in mountinfo.splitlines():
        mounted, _, kind = line.partition(" - ")
        fields, (fstype, _, options) = mounted.split(), kind.split(maxsplit=2)
        if fstype == "cgroup2":
            path = own.get("", "/")
        elif fstype == "cgroup":
            path = next(
                (p for names, p in own.items() if names and set(names.split(",")) <= set(options.split(","))),
                "/",
            )
        else:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), fields[4]))
        groups.append(point / path.lstrip("/"))
    return groups
