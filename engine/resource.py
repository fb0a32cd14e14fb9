"""Resources: the desired state of one thing on a host, as frozen data. No I/O.

A role returns resources; `engine.plan` turns them into the plan's JSON; `files/agent/` checks and
fixes them. Ids are `kind:name`, the same in `needs`, diffs, logs and `--only`. Commands are argv
tuples, never shell strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from posixpath import basename, dirname
from typing import ClassVar

from engine.health import Health, Watch
from inventory.secrets import Secret

Content = bytes | Path | Secret
"""Bytes, a file of the controller, or a secret.

A secret is one text. It becomes a file with a line break at its end.
"""
UNITS = "/etc/systemd/system"
"""The folder of the unit files that are no package's."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Base of every kind.

    `needs`: the ids that must be converged before it. `role`: its role's name, set by the compiler.
    """

    kind: ClassVar[str]
    named_by: ClassVar[str]  # the field that is its name
    triggered_by: ClassVar[tuple[str, ...]] = ()  # the fields with ids whose change makes it act
    needs: tuple[str, ...] = ()
    role: str = ""

    @property
    def name(self) -> str:
        """Return the part of the id after the colon."""
        return str(getattr(self, self.named_by))

    @property
    def id(self) -> str:
        """Return `kind:name`."""
        return f"{self.kind}:{self.name}"

    def implied(self) -> tuple[str, ...]:
        """Return the ids that it needs without saying so. A plan need not have them."""
        return ()

    def triggers(self) -> Mapping[str, tuple[str, ...]]:
        """Return the ids whose change makes it act, by the name of the field that lists them."""
        return {field: getattr(self, field) for field in self.triggered_by}

    def owned_path(self) -> str:
        """Return the path that no other resource of a plan may have, or ""."""
        return ""


@dataclass(frozen=True, kw_only=True)
class _At(Resource):
    named_by: ClassVar[str] = "path"
    path: str

    def implied(self) -> tuple[str, ...]:
        return (f"directory:{dirname(self.path)}",)

    def owned_path(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class File(_At):
    """A file with this content. Written as temp + fsync + mode + rename.

    `secret`: neither content nor diff is ever shown. Content that is a Secret requires it.
    `kept`: whether generations keep the content. They keep no secret's.
    `only_if_sha256`: refuse to write when the file on the host is no longer the one that was read
    ("" = absent). It is for files that other programs write as well. Their diff shows the lines
    that change and none around them.
    """

    kind: ClassVar[str] = "file"
    content: Content = field(repr=False)
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    secret: bool = False
    kept: bool = True
    only_if_sha256: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.content, Secret) and not self.secret:
            raise TypeError(f"{self.id} holds a secret and would show it")

    def implied(self) -> tuple[str, ...]:
        return (f"user:{self.owner}", f"group:{self.group}", *super().implied())


@dataclass(frozen=True, kw_only=True)
class Directory(_At):
    """A directory with this mode and owner; its contents are not looked at.

    With `present=False` it is removed when it is empty, and kept when another program has put
    something into it.
    """

    kind: ClassVar[str] = "directory"
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"
    present: bool = True

    def implied(self) -> tuple[str, ...]:
        return (f"user:{self.owner}", f"group:{self.group}", *super().implied()) if self.present else ()


@dataclass(frozen=True, kw_only=True)
class Symlink(_At):
    """A symbolic link, replaced atomically."""

    kind: ClassVar[str] = "symlink"
    target: str


@dataclass(frozen=True, kw_only=True)
class Absent(_At):
    """Nothing at this path, not even a directory.

    `unless_kept`: it stays while a generation of the host has a tree at this path or below.
    """

    kind: ClassVar[str] = "absent"
    unless_kept: str = ""

    def implied(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class Tree(_At):
    """A directory unpacked from a tar archive, replaced as a whole when the archive changes.

    The archive may have any compression that Python's tarfile reads.
    `shared`: archives that are unpacked into it as well. The host keeps them, so that the next tree
    with one of them need not bring it. `archive` has to be another one when they are.
    """

    kind: ClassVar[str] = "tree"
    archive: Content
    shared: tuple[Content, ...] = ()
    owner: str = "root"
    group: str = "root"

    def implied(self) -> tuple[str, ...]:
        return (f"user:{self.owner}", f"group:{self.group}", *super().implied())


@dataclass(frozen=True, kw_only=True)
class Package(Resource):
    """A distribution package, installed. The host's own package manager decides the version.

    `creates`: why it is wanted. Where this path is there, of any package, it is not installed.
    """

    kind: ClassVar[str] = "package"
    named_by: ClassVar[str] = "package"
    package: str
    creates: str | None = None


@dataclass(frozen=True, kw_only=True)
class Conffile(_At):
    """A configuration file of an installed package, as the package has it.

    The package manager may have to download the package again for that.
    """

    kind: ClassVar[str] = "conffile"
    package: str


@dataclass(frozen=True, kw_only=True)
class Group(Resource):
    """A system group, or with `present=False` none."""

    kind: ClassVar[str] = "group"
    named_by: ClassVar[str] = "group"
    group: str
    present: bool = True


@dataclass(frozen=True, kw_only=True)
class User(Resource):
    """A system user with no login, or with `present=False` none."""

    kind: ClassVar[str] = "user"
    named_by: ClassVar[str] = "user"
    user: str
    group: str
    home: str = "/nonexistent"
    present: bool = True

    def implied(self) -> tuple[str, ...]:
        return (f"group:{self.group}",) if self.present else ()


@dataclass(frozen=True, kw_only=True)
class Command(Resource):
    """A guarded command.

    It is done when `creates` exists or `unless` exits 0, and nothing in `on_change` has changed
    since it last ran. `check` runs nothing but `unless`. `unless_kept`: it is not run while a
    generation of the host has a tree at this path or below.
    """

    kind: ClassVar[str] = "command"
    named_by: ClassVar[str] = "title"
    triggered_by: ClassVar[tuple[str, ...]] = ("on_change",)
    title: str
    argv: tuple[str, ...]
    creates: str = ""
    unless: tuple[str, ...] = ()
    on_change: tuple[str, ...] = ()
    unless_kept: str = ""
    timeout_s: int = 120

    def implied(self) -> tuple[str, ...]:
        return (f"package:{basename(self.argv[0])}",)


@dataclass(frozen=True, kw_only=True)
class Service(Resource):
    """A systemd unit.

    It is restarted (or reloaded) once when any of `restart_on` (`reload_on`) changed. Then every
    `healthy` must hold within `timeout_s`, and every `watch` must answer as before. Otherwise the
    previous content of the changed files in those lists is put back, the unit is restarted again,
    and the resource has failed.

    `before`: argv that must exit 0 before a restart or reload (`nginx -t`). `listens`: the
    address:port of each TCP socket that the unit must have. A reload that fails to open one may
    end with 0; then the unit is restarted once, unless another program is in the way. `phase`: part
    of the id. It distinguishes two resources of one unit, where one plan has to reload the unit at
    two points.
    """

    kind: ClassVar[str] = "service"
    triggered_by: ClassVar[tuple[str, ...]] = ("restart_on", "reload_on")
    unit: str
    phase: str = ""
    enabled: bool = True
    running: bool = True
    restart_on: tuple[str, ...] = ()
    reload_on: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    healthy: tuple[Health, ...] = ()
    watch: tuple[Watch, ...] = ()
    timeout_s: int = 20
    lasts_s: int = 0

    @property
    def name(self) -> str:
        return f"{self.unit}/{self.phase}" if self.phase else self.unit

    def implied(self) -> tuple[str, ...]:
        return (f"file:{UNITS}/{self.unit}",)


@dataclass(frozen=True, kw_only=True)
class Sysctl(Resource):
    """A kernel setting, now and after a reboot.

    With `present=False` it is no longer set at boot. Until then the kernel keeps its value:
    `AsFound` brings back the one of before, where that was noted.
    """

    kind: ClassVar[str] = "sysctl"
    named_by: ClassVar[str] = "key"
    key: str
    value: str = ""
    present: bool = True


@dataclass(frozen=True, kw_only=True)
class NftTable(Resource):
    """Our nftables table (`inet <table>`), loaded from `rules` and at boot from `path`.

    Other programs' tables are not touched. Unless a second, fresh connection cancels a change
    within `revert_after_s`, the table of before comes back; 0: rules that cannot lock the
    controller out are not armed. `present=False` removes all at once.
    """

    kind: ClassVar[str] = "firewall"
    named_by: ClassVar[str] = "table"
    table: str
    path: str
    rules: bytes = b""
    revert_after_s: int = 30
    present: bool = True

    def implied(self) -> tuple[str, ...]:
        return (f"directory:{dirname(self.path)}",) if self.present else ()

    def owned_path(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class OpenPorts(Resource):
    """Ports that a firewall of the host's own (`through`: ufw, firewalld) lets in for us.

    Each is a port or range with its protocol, as 443/tcp or 60000-61000/udp, sorted by protocol and
    number. Without ports, what we opened there is closed. Rules of others stay.
    """

    kind: ClassVar[str] = "open_ports"
    named_by: ClassVar[str] = "through"
    through: str
    ports: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Image(Resource):
    """A Docker image, pulled from `ref` (name@sha256:…), or loaded from `archive` when given.

    With `present=False` every image that `ref` names is removed; a name without a tag names all.
    """

    kind: ClassVar[str] = "image"
    named_by: ClassVar[str] = "ref"
    ref: str
    archive: Content | None = None
    present: bool = True


@dataclass(frozen=True, kw_only=True)
class Container(Resource):
    """A Docker container, recreated when its definition changes, or with `running=False` removed.

    The definition is kept as a label. `arguments` are those of `docker run` after
    `--detach --name NAME --label …`: (`--publish`, `127.0.0.1:81:81`, …).
    """

    kind: ClassVar[str] = "container"
    named_by: ClassVar[str] = "container"
    triggered_by: ClassVar[tuple[str, ...]] = ("restart_on",)
    container: str
    image: str = ""
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    running: bool = True
    restart_on: tuple[str, ...] = ()
    healthy: tuple[Health, ...] = ()
    timeout_s: int = 30


@dataclass(frozen=True, kw_only=True)
class SupervisorProgram(Resource):
    """A program of supervisord, or with `running=False` none until it reads its files again."""

    kind: ClassVar[str] = "program"
    named_by: ClassVar[str] = "program"
    triggered_by: ClassVar[tuple[str, ...]] = ("restart_on",)
    program: str
    running: bool = True
    restart_on: tuple[str, ...] = ()
    healthy: tuple[Health, ...] = ()
    timeout_s: int = 30


@dataclass(frozen=True, kw_only=True)
class AsFound(Resource):
    """A thing of others as it was before our first plan that changed it, as the agent noted it.

    `subject`: a path, a unit, or the id of another resource. What was not there then, or did not
    run, is not looked at. What others have changed after us stays. `since`: a path that every plan
    of ours makes; only notes that go back to before it count. `package`: the id of the package that
    brings it, which we may have installed.
    """

    kind: ClassVar[str] = "as_found"
    named_by: ClassVar[str] = "subject"
    subject: str
    since: str
    package: str = ""
