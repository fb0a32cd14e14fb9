"""Facts that the agent reports of its host, and the questions that a role may ask. Data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A role's questions beyond the standard facts.

    `files`: globs of the files to read. `commands`: read-only commands to run, each by a name.
    """

    files: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def asked(*parts: Ask) -> Ask:
    """Return all these questions, each once."""
    files = dict.fromkeys(name for part in parts for name in part.files)
    commands = {name: argv for part in parts for name, argv in part.commands.items()}
    return Ask(files=tuple(files), commands=commands)


@dataclass(frozen=True, kw_only=True)
class FileFact:
    """A file that was asked for.

    `content` is None when it is a directory, not text, or larger than 256 KiB.
    """

    content: str | None
    sha256: str
    mode: str
    owner: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Output:
    """The output of an asked command.

    `status` is its exit status, 127 when there is no such program.
    """

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listening socket. `program` is the process's name, `unit` its systemd unit or ""."""

    proto: str  # "tcp" | "udp"
    address: str  # "0.0.0.0", "::", "127.0.0.1", …
    port: int
    pid: int
    program: str
    unit: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of one host at the start of a run, taken under the host's lock.

    The agent reports them all.
    """

    hostname: str
    os_id: str
    os_version: str
    os_codename: str
    os_like: tuple[str, ...]
    arch: str  # uname -m
    libc: tuple[str, str]
    kernel: str
    init: str
    python: tuple[int, int, int]
    python_executable: str
    now: float  # the host's clock, seconds since the epoch
    addresses: tuple[str, ...]
    listening: tuple[Listener, ...]
    ssh_ports: tuple[int, ...]  # the port of this very connection first, then sshd's other ports
    tools: Mapping[str, str]  # name -> path, of docker and nginx if they are there
    congestion_controls: tuple[str, ...]  # net.ipv4.tcp_available_congestion_control
    files: Mapping[str, FileFact]  # those asked for that exist
    commands: Mapping[str, Output]

    @property
    def has_ipv6(self) -> bool:
        """Whether the host has an IPv6 address beyond its links."""
        return any(":" in address and not address.startswith(("fe80:", "::1")) for address in self.addresses)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Facts:
        """Return the facts of the agent's hello event.

        Unknown keys are ignored, so that an older controller can read a newer agent.

        Raises TypeError and others when something is missing or malformed.
        """
        known = {name: raw[name] for name in cls.__dataclass_fields__ if name in raw}
        for name, value in known.items():
            if isinstance(value, list):
                known[name] = tuple(value)
        known["listening"] = tuple(Listener(**item) for item in raw["listening"])
        return cls(**known | _answers(raw))

    def extended(self, raw: Mapping[str, Any]) -> Facts:
        """Return these facts with the answers of a facts event added. Raises as `parse` does."""
        more = _answers(raw)
        files, commands = {**self.files, **more["files"]}, {**self.commands, **more["commands"]}
        return replace(self, files=files, commands=commands)


def _answers(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers to an Ask: the fields `files` and `commands`."""
    return {
        "files": {path: FileFact(**item) for path, item in raw["files"].items()},
        "commands": {name: Output(**item) for name, item in raw["commands"].items()},
    }
