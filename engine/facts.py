"""Facts that the agent reports of its host, and the questions that a role may ask. Data, no I/O.

A host that was taken over may report anything. So the types, lengths and ranges below are checked
(`Facts.parse`), and the first value that does not fit ends the check: thousands of complaints about
one host's facts would cost the controller more than the facts themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

_Text = Annotated[str, Field(max_length=256)]
_Word = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")]
_Part = Annotated[int, Field(strict=True, ge=0, le=9999)]
_Port = Annotated[int, Field(strict=True, ge=0, le=65535)]
_Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


def _few(most: int) -> Any:
    return Field(max_length=most, fail_fast=True)


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A role's questions beyond the standard facts.

    `files`: globs of the files to read. `commands`: read-only commands to run, each by a name.
    `tools`: the names of programs to look for. `history`: the first `Session.history` costs no turn
    of its own.
    """

    files: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    history: bool = False


def asked(*parts: Ask) -> Ask:
    """Return all these questions, each once."""
    files = dict.fromkeys(name for part in parts for name in part.files)
    commands = {name: argv for part in parts for name, argv in part.commands.items()}
    tools = dict.fromkeys(name for part in parts for name in part.tools)
    history = any(part.history for part in parts)
    return Ask(files=tuple(files), tools=tuple(tools), commands=commands, history=history)


@dataclass(frozen=True, kw_only=True)
class FileFact:
    """A file that was asked for.

    `content` is None when it is a directory, not text, or larger than 256 KiB. `link`: where the
    path leads in the end, when it is a symlink; else "".
    """

    content: str | None
    sha256: _Digest
    mode: Annotated[str, Field(pattern="^[0-7]{4}$")]
    owner: _Word
    group: _Word
    link: Annotated[str, Field(max_length=4096)] = ""


@dataclass(frozen=True, kw_only=True)
class Output:
    """The output of an asked command.

    `status` is its exit status, 127 when there is no such program.
    """

    status: Annotated[int, Field(strict=True, ge=-255, le=255)]
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A listening socket. `program` is the process's name, `unit` its systemd unit or ""."""

    proto: Annotated[str, Field(pattern="^(tcp|udp)$")]
    address: _Word  # "0.0.0.0", "::", "127.0.0.1", …
    port: _Port
    pid: Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
    program: _Text  # any process may give itself any name
    unit: _Text


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of one host at the start of a run, taken under the host's lock.

    The agent reports them all.
    """

    hostname: _Text
    os_id: _Text
    os_version: _Text
    os_codename: _Text
    os_like: Annotated[tuple[_Text, ...], _few(64)]
    arch: _Name  # uname -m
    libc: tuple[_Word, _Word]
    kernel: _Word
    init: _Text
    python: tuple[_Part, _Part, _Part]
    python_executable: _Word
    now: Annotated[float, Field(strict=True, ge=0, le=1e11)]  # the host's clock, seconds since the epoch
    addresses: Annotated[tuple[_Word, ...], _few(65_536)]
    listening: Annotated[tuple[Listener, ...], _few(65_536)]
    # the port of this very connection first, then sshd's other ports
    ssh_ports: Annotated[tuple[_Port, ...], _few(1024)]
    congestion_controls: Annotated[tuple[_Text, ...], _few(256)]  # net.ipv4.tcp_available_congestion_control
    tools: Annotated[dict[_Text, _Word], _few(64)]  # name -> path, of those asked for that are there
    files: Annotated[dict[str, FileFact], _few(10_000)]  # those asked for that exist
    commands: Annotated[dict[str, Output], _few(1000)]

    @property
    def has_ipv6(self) -> bool:
        """Whether the host has an IPv6 address beyond its links."""
        return any(":" in address and not address.startswith(("fe80:", "::1")) for address in self.addresses)

    def said(self, name: str) -> str:
        """Return the output of an asked command, "" when it was not asked for."""
        found = self.commands.get(name)
        return found.stdout if found else ""

    @classmethod
    def parse(cls, raw: Any) -> Facts:
        """Return the facts of the agent's hello event, decoded from JSON.

        Unknown keys are ignored, so that an older controller can read a newer agent.
        Raises ValueError with the first value that is missing or has another form.
        """
        facts: Facts = parsed(cls, raw)
        return facts

    def extended(self, raw: Any) -> Facts:
        """Return these facts with the answers of a facts event added. Raises as `parse` does."""
        more: _Answers = parsed(_Answers, raw)
        return replace(
            self,
            tools={**self.tools, **more.tools},
            files={**self.files, **more.files},
            commands={**self.commands, **more.commands},
        )


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """The answers to an Ask."""

    tools: Annotated[dict[_Text, _Word], _few(64)]
    files: Annotated[dict[str, FileFact], _few(10_000)]
    commands: Annotated[dict[str, Output], _few(1000)]


def parsed(kind: type, raw: Any) -> Any:
    """Return a dataclass from a host's JSON. Raises ValueError with the first error."""
    try:
        return _reader(kind).validate_python(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:200]
        raise ValueError(f"what it reports is malformed: {where}: {first['msg']}") from None


@cache
def _reader(kind: type) -> TypeAdapter[Any]:
    """Return the check of a dataclass. It is made when the first host answers: it takes a while."""
    return TypeAdapter(kind)
