"""Facts for tests: a host to `replace` fields of, so that each test states only the fields that
matter to it."""

from __future__ import annotations

from engine.facts import Facts, FileFact
from roles.contract import Neighbours, never

# An empty Debian 12: none of our programs, nothing listens, no question was asked.
DEBIAN_12 = Facts(
    hostname="",
    os_id="debian",
    os_version="12",
    os_codename="bookworm",
    os_like=(),
    arch="x86_64",
    libc=("glibc", "2.36"),
    kernel="",
    init="systemd",
    python=(3, 11, 2),
    python_executable="/usr/bin/python3",
    now=0.0,
    addresses=(),
    listening=(),
    ssh_ports=(22,),
    tools={},
    congestion_controls=(),
    files={},
    commands={},
)

NO_NEIGHBOURS = Neighbours(open_ports=frozenset(), shares=never, is_ours=never)
"""A host without other programs."""

EMPTY_FILE = FileFact(content="", sha256="", mode="0644", owner="root", group="root")
