"""What an agent tells of its host, and what a role may ask for. Data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a role wants to know beyond the standard facts: files (globs) to read, and read-only commands to run, by a name."""

    files: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FileFact:
    """A file that was asked for. `content` is None when it is a directory, not text, or larger than 256 KiB."""

    content: str | None
    sha256: str
    mode: str
    owner: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Output:
    """What an asked command printed; `status` is its exit status, 127 when there is no such program."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listening socket. `program` is the process's name, `unit` its systemd unit (or "")."""

    proto: str  # "tcp" | "udp"
    address: str  # "0.0.0.0", "::", "127.0.0.1", …
    port: int
    pid: int
    program: str
    unit: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of one host at the start of a run, taken under the host's lock."""

    hostname: str = ""
    os_id: str = "debian"
    os_version: str = "12"
    os_codename: str = "bookworm"
    os_like: tuple[str, ...] = ()
    arch: str = "x86_64"  # uname -m
    libc: tuple[str, str] = ("glibc", "2.36")
    kernel: str = ""
    init: str = "systemd"
    python: tuple[int, int, int] = (3, 11, 2)
    python_executable: str = "/usr/bin/python3"
    now: float = 0.0  # the host's clock, seconds since the epoch
    addresses: tuple[str, ...] = ()
    listening: tuple[Listener, ...] = ()
    ssh_ports: tuple[int, ...] = (22,)  # the port of this very connection first, then those that sshd listens on
    tools: Mapping[str, str] = field(default_factory=dict)  # name -> path, of docker and nginx
    congestion_controls: tuple[str, ...] = ()  # net.ipv4.tcp_available_congestion_control
    files: Mapping[str, FileFact] = field(default_factory=dict)  # those asked for that exist
    commands: Mapping[str, Output] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Facts:
        """Facts from the agent's hello event. Unknown keys are ignored, so that an older controller reads a newer agent."""
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = tuple(value)
        known["listening"] = tuple(Listener(**item) for item in raw.get("listening", ()))
        known["files"] = {path: FileFact(**item) for path, item in raw.get("files", {}).items()}
        known["commands"] = {name: Output(**item) for name, item in raw.get("commands", {}).items()}
        return cls(**known)
