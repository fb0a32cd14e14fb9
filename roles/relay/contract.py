"""The two parts of a relay: a program, and a runner that keeps it alive. Each is a module.

A program knows no runner and a runner no program: `Start` is all that passes between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Literal, Protocol

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, Listener
from engine.health import Health, Http
from engine.resource import Absent, Resource
from inventory.model import Host, Site
from roles.wiring import LOOPBACK, Wiring


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page that the running program serves to its own loopback, or to root.

    `at`: a port of loopback, or the path of a unix socket.
    """

    scheme: Literal["http", "https"]
    at: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a program is installed and started, in terms that do not depend on the runner.

    `installed`: the resources that put it on the host, with the file that lets our proof in.
    `artefact`: the id of the one that is run.
    `ready`: the ids after which the former relay may stop, so that the outage is short.
    `outdated`: its former artefacts, to be removed once the new one runs.
    `image`: the image to run; else `command`: the program, and `flags`: each with its values.
    `mounts`: paths of the host that it reads, each with the path where it looks for it.
    `reads`: the ids of files that it reads at its start only.
    `binds`: the sockets that it opens itself, each as `ipv4:tcp:9411`.
    `executables`: all files and folders whose code it runs; (): they are not known.
    `takes_sockets`: systemd may hold its other sockets and hand them over, and it says when it is
    ready and that it still works (sd_notify).
    `reload_signal`: the signal after which it serves a new certificate, without SIG; "": none.
    """

    installed: tuple[Resource, ...]
    artefact: str
    healthy: Health
    reads: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    outdated: tuple[Absent, ...] = ()
    image: str = ""
    command: tuple[str, ...] = ()
    flags: tuple[tuple[str, ...], ...] = ()
    binds: tuple[str, ...] = ()
    executables: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    takes_sockets: bool = False
    reload_signal: str = ""


@dataclass(frozen=True, kw_only=True)
class Admitting:
    """How a program is told who may use it.

    `flags`: each with its values, for our relay and for derper's command line; (): everyone may.
    `resources`: those that have to be there first. `url`: the one that is asked for every client,
    or "".
    """

    flags: tuple[tuple[str, ...], ...] = ()
    resources: tuple[Resource, ...] = ()
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A question about a client, asked from the relay's host.

    `judge`: the URL or the socket of whom it asks. `program`: the words behind `python3 -I -c`.
    `is_vital`: a relay that restarts while there is no answer shuts its clients out. A judge that a
    deploy installs, or refuses to go on without, is not.
    """

    judge: str
    program: tuple[str, ...]
    is_vital: bool = False


class Judge(Protocol):
    """A judge of who may use a relay."""

    KNOWN_BY: tuple[str, ...]  # it has nothing here without one of these files; (): it may have

    def admitting(self, host: Host, site: Site, facts: Facts, ship: Shipment) -> Admitting:
        """Return how the program is told."""

    def absent(self, *, needs: tuple[str, ...] = (), unless_kept: bool = False) -> list[Resource]:
        """Return the removal of `Admitting.resources`, after `needs`.

        `unless_kept`: things stay that a kept generation needs, and that nothing could bring back.
        """

    def ask(self, host: Host, site: Site) -> Ask:
        """Return the questions that `refusals` and `warnings` need."""

    def inquiry(self, host: Host, site: Site, key: str) -> Inquiry | None:
        """Return the question about a node key, as `nodekey:…`; None when the relay asks nobody."""

    def refusals(self, host: Host, facts: Facts) -> list[str]:
        """Return the reasons why it cannot be used here, as sentences that say what to do."""

    def warnings(self, host: Host, facts: Facts) -> list[str]:
        """Return sentences about what is probably unintended, each with the change to make."""


class Program(Protocol):
    """A DERP relay's program."""

    ASK: Ask
    PROCESSES: frozenset[str]  # the names of its processes in a container
    KEY_FIELD: str  # of the journal, where it puts a client's key; "": it logs plain lines

    def start(
        self, host: Host, wiring: Wiring, facts: Facts, ship: Shipment, admitting: Admitting
    ) -> Start:
        """Return how it is started."""

    def metrics(self, host: Host, wiring: Wiring) -> Page:
        """Return the page with its metrics."""

    def absent(self, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return the removal, after `needs`, of what `Start.installed` has put there.

        Releases are left to `roles.relay.releases`: each program's are in the same place.
        """

    def refusals(self, host: Host, site: Site, facts: Facts) -> list[str]:
        """Return the reasons why it cannot be used here, as sentences that say what to do."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """The other roles' part of a running relay.

    `key`: the id of its key.
    `former`: the resources that stop and remove the other runners.
    `listens_after`: the ids that have to be done before it can listen.
    """

    key: str
    former: tuple[Resource, ...]
    listens_after: tuple[str, ...]


class Runner(Protocol):
    """A keeper of the relay's process: it starts the program at boot and after a crash."""

    ASK: Ask
    ASK_PORTS: Ask  # asked on every host: what `has` needs, and the files KNOWN_BY
    KNOWN_BY: tuple[str, ...]  # it has no relay here without one of these files; (): it may have
    RUNNING: str  # the id of the resource that is the running relay
    RELOAD: tuple[str, ...]  # the command after which a new certificate is served
    RESTART: tuple[str, ...]  # the command that ends the process and starts a new one

    def resources(
        self, host: Host, wiring: Wiring, facts: Facts, start: Start, given: Given
    ) -> list[Resource]:
        """Return the running relay, with `start.installed` and `given.former`."""

    def log(self, lines: int) -> tuple[str, ...]:
        """Return the command that prints the last lines of the relay's log."""

    def log_of_client(self, key: str, field: str) -> tuple[str, ...]:
        """Return the command that prints at least the log's last lines about the client of that
        key.

        `field`: as `Program.KEY_FIELD`.
        """

    def in_its_network(self, program: tuple[str, ...]) -> tuple[str, ...]:
        """Return `program` so that it runs where the relay's loopback is.

        Both are the words behind `python3 -I -c`.
        """

    def absent(self, *, needs: tuple[str, ...] = ()) -> list[Resource]:
        """Return the relay, stopped after `needs`, and the removal of the runner's own files."""

    def has(self, listener: Listener, facts: Facts, processes: Set[str]) -> bool:
        """Whether the listener is that of its relay. `facts` have to answer `ASK_PORTS`.

        `processes`: the names of every program's processes in a container.
        """

    def stopped(self) -> list[Resource]:
        """Return the relay, stopped now and after a reboot. Its installation stays."""

    def refusals(self, host: Host, wiring: Wiring, facts: Facts) -> list[str]:
        """Return the reasons why it cannot be used here, as sentences that say what to do."""


def health(host: Host, wiring: Wiring) -> Health:
    """Return the check that the relay itself answers, with or without a front."""
    port = wiring.relay.port
    if not wiring.relay_has_tls:
        return Http(url=f"http://{LOOPBACK}:{port}/derp/probe")
    return Http(
        url=f"https://{host.domain}:{port}/derp/probe",
        connect=f"{LOOPBACK}:{port}",
        insecure=True,
        proxy_header=wiring.relay_reads_proxy_header,
    )
