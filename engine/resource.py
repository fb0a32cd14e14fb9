"""Resources: the desired state of one thing on a host, as frozen data. No I/O.

A role returns resources. `engine.plan` turns them into the plan's JSON. `files/agent/` checks and
fixes them.

Ids are `kind:name`, the same in `needs`, diffs, logs and `--only`.
Commands are argv tuples, never shell strings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from inventory.secrets import Secret

Content = bytes | Path | Secret
"""Bytes, a file of the controller, or a secret. A secret becomes a file with a line break at its end."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """The fields of every kind.

    `needs`: ids that must be converged before it. `role`: the role that it belongs to, set by the
    compiler.
    """

    kind: ClassVar[str]
    needs: tuple[str, ...] = ()
    role: str = ""

    @property
    def name(self) -> str:
        """Return the part of the id behind the colon."""
        raise TypeError(f"{type(self).__name__} names nothing")

    @property
    def id(self) -> str:
        """Return `kind:name`."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, kw_only=True)
class _At(Resource):
    path: str

    @property
    def name(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class File(_At):
    """A file with this content. Written as temp + fsync + mode + rename.

    `secret`: neither content nor diff is ever shown. It must be set when the content is a Secret.
    `only_if_sha256`: refuse to write when the file on the host is no longer the one that was read
    ("" = absent). It is for files that other programs write, too. Their diff shows only the
    changed lines.
    """

    kind: ClassVar[str] = "file"
    content: Content = field(repr=False)
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    only_if_sha256: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.content, Secret) and not self.secret:
            raise TypeError(f"{self.id} holds a secret and would show it")


@dataclass(frozen=True, kw_only=True)
class Directory(_At):
    """A directory with this mode and owner. Its contents are not looked at."""

    kind: ClassVar[str] = "directory"
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, kw_only=True)
class Symlink(_At):
    """A symbolic link, replaced atomically."""

    kind: ClassVar[str] = "symlink"
    target: str


@dataclass(frozen=True, kw_only=True)
class Absent(_At):
    """Nothing at this path. A file, link or whole directory is removed."""

    kind: ClassVar[str] = "absent"


@dataclass(frozen=True, kw_only=True)
class Tree(_At):
    """A directory unpacked from a tar archive (any compression of Python's tarfile).

    It is replaced as a whole when the archive changes.
    """

    kind: ClassVar[str] = "tree"
    archive: Content
    owner: str = "root"
    group: str = "root"


@dataclass(frozen=True, kw_only=True)
class Package(Resource):
    """A distribution package, installed. The host's own package manager decides the version."""

    kind: ClassVar[str] = "package"
    package: str

    @property
    def name(self) -> str:
        return self.package


@dataclass(frozen=True, kw_only=True)
class Group(Resource):
    """A system group."""

    kind: ClassVar[str] = "group"
    group: str

    @property
    def name(self) -> str:
        return self.group


@dataclass(frozen=True, kw_only=True)
class User(Resource):
    """A system user with no login."""

    kind: ClassVar[str] = "user"
    user: str
    group: str
    home: str = "/nonexistent"

    @property
    def name(self) -> str:
        return self.user


@dataclass(frozen=True, kw_only=True)
class Command(Resource):
    """A guarded command.

    It is done when `creates` exists or `unless` exits 0, and nothing in `on_change` has changed
    since it last ran. A check runs only `unless`.
    """

    kind: ClassVar[str] = "command"
    title: str
    argv: tuple[str, ...]
    creates: str = ""
    unless: tuple[str, ...] = ()
    on_change: tuple[str, ...] = ()
    timeout_s: int = 120

    @property
    def name(self) -> str:
        return self.title


@dataclass(frozen=True, kw_only=True)
class Exec:
    """A health condition: `argv` exits 0."""

    kind: ClassVar[str] = "exec"
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Http:
    """A health condition: a GET from the host gets this status and a body with all these texts.

    `connect`: address:port to connect to instead of the URL's own.
    `insecure`: do not verify https. SNI and Host are the URL's.
    """

    kind: ClassVar[str] = "http"
    url: str
    status: int = 200
    contains: tuple[str, ...] = ()
    connect: str = ""
    accept: str = "*/*"
    insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A site of another program. After the changes it must answer with its status from before."""

    url: str
    connect: str


Health = Exec | Http


@dataclass(frozen=True, kw_only=True)
class Service(Resource):
    """A systemd unit.

    It is restarted (or reloaded) once when any of `restart_on` (`reload_on`) changed. Then every
    `healthy` must hold within `timeout_s`, and every `watch` must answer as before. Otherwise the
    previous content of the changed files named there is put back, the unit is restarted again, and
    the resource has failed.

    `before`: argv that must exit 0 before a restart or reload (`nginx -t`).
    `phase`: part of the id. It distinguishes two resources of one unit, for a plan that has to
    reload the unit at two points.
    """

    kind: ClassVar[str] = "service"
    unit: str
    phase: str = ""
    enabled: bool = True
    running: bool = True
    restart_on: tuple[str, ...] = ()
    reload_on: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    healthy: tuple[Health, ...] = ()
    watch: tuple[Watch, ...] = ()
    timeout_s: int = 20

    @property
    def name(self) -> str:
        return f"{self.unit}/{self.phase}" if self.phase else self.unit


@dataclass(frozen=True, kw_only=True)
class Sysctl(Resource):
    """A kernel setting, now and after a reboot."""

    kind: ClassVar[str] = "sysctl"
    key: str
    value: str

    @property
    def name(self) -> str:
        return self.key


@dataclass(frozen=True, kw_only=True)
class Firewall(Resource):
    """Our own nftables table (`inet <table>`), loaded from `rules`, and at boot from `path`.

    No other table is touched. A change is armed: unless a second, fresh connection cancels it
    within `revert_after_s`, the previous table comes back.
    """

    kind: ClassVar[str] = "firewall"
    table: str
    path: str
    rules: bytes
    revert_after_s: int = 30

    @property
    def name(self) -> str:
        return self.table


@dataclass(frozen=True, kw_only=True)
class Image(Resource):
    """A Docker image by digest.

    It is present, pulled from `ref` (name@sha256:…), or loaded from `archive` when given.
    """

    kind: ClassVar[str] = "image"
    ref: str
    archive: Content | None = None

    @property
    def name(self) -> str:
        return self.ref


@dataclass(frozen=True, kw_only=True)
class Container(Resource):
    """A Docker container, recreated when its definition (kept as a label) changes.

    With `running=False` it is removed.

    `arguments`: those of `docker run` behind `--detach --name NAME --label …`, for example
    (`--publish`, `127.0.0.1:81:81`, …).
    """

    kind: ClassVar[str] = "container"
    container: str
    image: str = ""
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    running: bool = True
    restart_on: tuple[str, ...] = ()
    healthy: tuple[Health, ...] = ()
    timeout_s: int = 30

    @property
    def name(self) -> str:
        return self.container
