"""The relay under a packaged supervisord: a program file, and its own user by setpriv."""

from __future__ import annotations

import re
import shlex
from collections.abc import Set

from engine.facts import Ask, Facts, Listener
from engine.render import render
from engine.resource import Absent, Directory, File, Resource, Service, SupervisorProgram
from inventory.model import Host
from roles import distributions, paths
from roles.readers.supervisord_config import includes
from roles.relay.contract import Given, Start
from roles.wiring import Wiring

PROGRAM = "derpfleet-relay"
_CONTROL, _PACKAGE = "supervisorctl", "supervisor"
# Each family's supervisord, by the file of our program there.
_DAEMONS = {
    row.family.supervisor.program_file.format(PROGRAM): row.family.supervisor
    for row in distributions.DISTRIBUTIONS.values()
}
_PACKAGED = "/lib/systemd/system/"  # where a package has its unit
_LOGS = "/var/log/derpfleet"
_LOG = f"{_LOGS}/{PROGRAM}.log"
_INDEX, _CANDIDATE = "apt_index", "apt_supervisor"

ASK = Ask(
    files=tuple(f"{_PACKAGED}{daemon.unit}" for daemon in _DAEMONS.values()),
    tools=(_CONTROL,),
    commands={
        _INDEX: ("apt-cache", "policy"),
        _CANDIDATE: ("apt-cache", "policy", _PACKAGE),
        # Only that section: others may have passwords.
        **{one.config: ("awk", r"/^\[/ {on = /^\[include\]/} on", one.config) for one in _DAEMONS.values()},
    },
)
RUNNING = f"program:{PROGRAM}"
KNOWN_BY = tuple(_DAEMONS)
ASK_PORTS = Ask(files=KNOWN_BY)
RESTART: tuple[str, ...] = (_CONTROL, "restart", PROGRAM)
RELOAD = RESTART  # derper reads its certificate only once


def resources(host: Host, wiring: Wiring, facts: Facts, start: Start, given: Given) -> list[Resource]:
    """Return supervisord and its program. The former relay is removed just before it starts."""
    distribution = distributions.of(facts)
    daemon = distribution.family.supervisor
    packages = distributions.in_order(distribution.supervisor, creates=f"{_PACKAGED}{daemon.unit}")
    installed = tuple(package.id for package in packages)
    supervisord = Service(unit=daemon.unit, needs=installed)
    logs = Directory(path=_LOGS, mode="0750")
    file = File(
        path=daemon.program_file.format(PROGRAM),
        content=render(
            "relay.supervisor.conf.j2",
            host=host,
            name=PROGRAM,
            user=paths.USER,
            uses=[use for use in wiring.uses if use.program == "relay"],
            command=_line((*start.command, *(word for flag in start.flags for word in flag))),
            log=_LOG,
        ),
        needs=installed,
    )
    program = SupervisorProgram(
        program=PROGRAM,
        restart_on=(file.id, start.artefact, *start.reads),
        healthy=(start.healthy,),
        needs=(
            supervisord.id,
            logs.id,
            file.id,
            given.key,
            *(resource.id for resource in (*start.installed, *given.former)),
            *given.listens_after,
        ),
    )
    return [*start.installed, *packages, supervisord, logs, file, *given.former, program]


def _line(words: tuple[str, ...]) -> str:
    """Return the words as a `command` of supervisord, which splits it as a shell and expands %."""
    return shlex.join(words).replace("%", "%%")


def log(lines: int) -> tuple[str, ...]:
    """Return `tail` for the program's log."""
    return ("tail", "--lines", str(lines), _LOG)


def log_of_client(key: str, field: str) -> tuple[str, ...]:
    """Return the end of the log, which has no fields to look for a key."""
    return log(500)


def in_its_network(program: tuple[str, ...]) -> tuple[str, ...]:
    """Return the program as it is: the relay has the host's network."""
    return program


def has(listener: Listener, facts: Facts, processes: Set[str]) -> bool:
    """Whether supervisord's program has a port that its file names."""
    units = {path: daemon.unit for path, daemon in _DAEMONS.items() if path in facts.files}
    texts = [facts.files[path].content or "" for path, unit in units.items() if unit == listener.unit]
    lines = [line for text in texts for line in re.findall(r"^; Its ports:(.*)$", text, re.M)]
    return f"{listener.proto}/{listener.port}" in " ".join(lines).split()


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the program, stopped and forgotten, and the removal of its file, wherever it may be,
    and its logs.

    supervisord itself stays, as other programs may run under it.
    """
    program = SupervisorProgram(program=PROGRAM, running=False, needs=needs)
    return [program, *(Absent(path=path, needs=(program.id,)) for path in (*KNOWN_BY, _LOGS))]


def stopped() -> list[Resource]:
    """Return the removal of the program: supervisord would start it at boot while it has a file."""
    return [resource for resource in absent() if resource.id != f"absent:{_LOGS}"]


def refusals(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    """Return a sentence if the host cannot have a packaged supervisord that reads our file."""
    other, distribution = f"set hosts.{host.name}.relay.under to systemd", distributions.of(facts)
    daemon = distribution.family.supervisor
    if f"{_PACKAGED}{daemon.unit}" in facts.files:
        section, pattern = facts.commands.get(daemon.config), daemon.program_file.format("*")
        ours = daemon.program_file.format(PROGRAM)
        if not section or section.status or includes(section.stdout, config=daemon.config, path=ours):
            return []
        return [
            f"{daemon.config} on {host.name} does not include {pattern}, where the relay's program would be: "
            f"add {pattern} to `files` in its section [include], or {other}."
        ]
    if _CONTROL in facts.tools:
        return [
            f"{facts.tools[_CONTROL]} on {host.name} is not of the package {_PACKAGE}, and derpfleet knows "
            f"only that one's files and service: remove it (pip uninstall supervisor), or {other}."
        ]
    if not distribution.supervisor:
        return [
            f"{host.name} runs {distribution.name}, which has no package {_PACKAGE}: install one there that "
            f"brings {daemon.unit} (EPEL has it for Enterprise Linux), and deploy again; or {other}."
        ]
    return distributions.unmirrored(host, distribution.supervisor, other) or _unoffered(host, facts, other)


def _unoffered(host: Host, facts: Facts, other: str) -> list[str]:
    """Return a sentence if apt has read its sources, and none of them has the package."""
    index, candidate = facts.commands.get(_INDEX), facts.commands.get(_CANDIDATE)
    if index and candidate and "http" in index.stdout and _PACKAGE not in candidate.stdout:
        return [
            f"No package source of {host.name} has the package {_PACKAGE}, which relay.under supervisord "
            "needs: add the one that has it (Debian: main; Ubuntu: universe) and run apt-get update, "
            f"or {other}."
        ]
    return []
