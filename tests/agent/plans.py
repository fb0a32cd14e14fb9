"""The plan that the agent's tests converge to, and its parts."""

from __future__ import annotations

import tarfile
from io import BytesIO
from typing import Any

from engine.resource import (
    Absent,
    Command,
    Directory,
    File,
    Group,
    NftTable,
    Package,
    Resource,
    Service,
    Symlink,
    Sysctl,
    Tree,
    User,
)

RULES = b"""table inet relay
delete table inet relay
table inet relay { chain in { type filter hook input priority 0; policy accept; }; }
"""
UNIT = File(path="/etc/systemd/system/relay.service", content=b"[Service]\nExecStart=/bin/true\n")
FOLDER = Directory(path="/etc/relay")


def environment(content: bytes) -> File:
    return File(path="/etc/relay/relay.env", content=content)


def service(**more: Any) -> Service:
    """Return the relay's service; `more` adds fields or replaces them."""
    restart_on = (UNIT.id, "file:/etc/relay/relay.env")
    return Service(**({"unit": "relay.service", "restart_on": restart_on, "timeout_s": 1} | more))


def relay_host(*, setting: str = "one", fin_timeout_s: int = 31) -> list[Resource]:
    """Return a plan with every kind but Docker's two: a small relay host."""
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("relay/__init__.py", "relay/server.py"):
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            tar.addfile(entry, BytesIO(name.encode()))
    settings = environment(f"SETTING={setting}\n".encode())
    return [
        Package(package="nginx"),
        Package(package="nftables"),
        Group(group="relay"),
        User(user="relay", group="relay"),
        Directory(path="/etc/relay", mode="0750", group="relay"),
        Tree(path="/srv/relay", archive=archive.getvalue()),
        File(path="/etc/relay/relay.key", content=b"privkey:00\n", mode="0640", group="relay", secret=True),
        settings,
        Symlink(path="/srv/current", target="relay"),
        Absent(path="/etc/relay/old.conf"),
        Sysctl(key="net.ipv4.tcp_fin_timeout", value=str(fin_timeout_s)),
        NftTable(table="relay", path="/etc/relay.nft", rules=RULES),
        Command(title="first copy", argv=("cp", "/etc/relay/relay.env", "/srv/first"), creates="/srv/first"),
        Command(title="copy", argv=("cp", "/etc/relay/relay.env", "/srv/copy"), on_change=(settings.id,)),
        UNIT,
        service(),
    ]


def another_service() -> list[Resource]:
    unit = File(path="/etc/systemd/system/more.service", content=b"[Service]\nExecStart=/bin/true\n")
    return [unit, Service(unit="more.service", restart_on=(unit.id,), timeout_s=1)]


def another_table(policy: str = "accept", *, present: bool = True) -> list[Resource]:
    rules = RULES.replace(b"relay", b"more").replace(b"accept", policy.encode())
    return [NftTable(table="more", path="/srv/more.nft", rules=rules if present else b"", present=present)]


def old() -> list[Resource]:
    return relay_host()


def new() -> list[Resource]:
    """Return the plan after `old`: other settings, and a file, a service and a table more."""
    more = File(path="/etc/relay/more", content=b"new\n")
    return [*relay_host(setting="two", fin_timeout_s=35), more, *another_service(), *another_table()]
