"""The terms in which families of distributions differ. A family is a module of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A package, and the unit that it brings."""

    package: str
    unit: str


@dataclass(frozen=True, kw_only=True)
class Supervisor:
    """supervisord as its package has it.

    `program_file`: the path of a program's file, with `{}` for the program's name, as `config`
    includes it.
    """

    unit: str
    config: str
    program_file: str


@dataclass(frozen=True, kw_only=True)
class Nginx:
    """nginx as its package has it.

    `folder`: where sites are added. `folders`: patterns of files with sites, in nginx.conf's order.
    `modules`: the pattern of files that load modules. `stream_package`: it brings the module of
    streams. `conf_package`: it brings nginx.conf.
    `welcome`: the link that turns the welcome page on; "" where nginx.conf has the page itself.
    """

    user: str
    folder: str
    folders: tuple[str, ...]
    modules: str
    stream_package: str
    conf_package: str
    welcome: str


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Docker's own packages: the file that names their source, from `template`, and their key."""

    path: str
    template: str
    key_path: str
    key: Path
    packages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Carriage:
    """How the controller brings packages to hosts of a family.

    `resolver`: the program of files/scripts that names the packages to fetch for the host.
    `installed`: prints a line for each package, with its name, version and state.
    `template`: of the file that names the folder with the brought packages as their source.
    """

    resolver: str
    installed: tuple[str, ...]
    template: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """Distributions with the same packages.

    `owner`: the command that names the package of a file.
    `python`: the package, and the name, of the Python for our programs where `python3` is too old;
    "": there is none.
    `streams`: by release, the module stream of nginx to enable first, since the default is too old.
    `too_old`: by release, why it will not do.
    `trust`: the host's trust store, and where a container has it.
    """

    system: str
    owner: str
    python: str
    clock: Daemon
    cron: Daemon
    nginx: Nginx
    docker: Repository
    trust: Mapping[str, str]
    carriage: Carriage
    supervisor: Supervisor
    streams: Mapping[str, str] = field(default_factory=dict)
    too_old: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """The layout of a distribution's mirrors, as a template of the file that names one.

    `keys`: the host's file with the keys that sign the packages, by release; "": of all others.
    """

    template: str
    keys: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One distribution.

    `releases`: the major releases that will do; (): all, and what is older than `oldest` is warned
    of. `covers_derived`: whether others that call themselves like it are treated as it is.
    `docker_system`: its folder in Docker's repository; "": it has none. `docker`: the packages of
    its own Docker; (): it has none. `docker_client`: the package of Docker's client, where those do
    not bring it; there is one since the release `docker_client_since` of this distribution itself,
    or 0: only the host knows.
    `certbot`, `supervisor`: the packages to install in this order; (): it has none.
    `mirror`: None: `packages.mirror` has no word for it.
    """

    family: Family
    name: str
    releases: tuple[str, ...] = ()
    oldest: tuple[int, ...] = ()
    covers_derived: bool = False
    docker_system: str = ""
    docker: tuple[str, ...] = ()
    docker_client: str = ""
    docker_client_since: int = 0
    certbot: tuple[str, ...] = ()
    supervisor: tuple[str, ...] = ()
    mirror: Mirror | None = None
