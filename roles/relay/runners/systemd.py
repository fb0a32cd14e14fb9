"""The relay as a systemd service with its own user.

systemd holds its sockets over a restart, where the program takes them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Set

from engine.facts import Ask, Facts, Listener
from engine.render import render
from engine.resource import Absent, Command, File, Resource, Service
from inventory.model import Host
from roles import paths
from roles.contract import nothing
from roles.relay.contract import Given, Start
from roles.wiring import Wiring

_UNIT_FILE = f"{paths.SYSTEMD}/{paths.SERVICE}"
_SOCKET_FILE = f"{paths.SYSTEMD}/{paths.SOCKET}"
_KILL = "-/bin/kill"  # of ExecReload=

ASK = Ask(files=(_UNIT_FILE,))
ASK_PORTS = Ask(files=(_SOCKET_FILE,))
KNOWN_BY: tuple[str, ...] = ()
RUNNING = f"service:{paths.SERVICE}"
refusals = nothing  # every relay host has systemd (`roles.base`)
_SOCKET = f"service:{paths.SOCKET}"
# A reload keeps the clients. systemd restarts a unit that has none.
RELOAD: tuple[str, ...] = ("systemctl", "try-reload-or-restart", paths.SERVICE)
RESTART: tuple[str, ...] = ("systemctl", "restart", paths.SERVICE)


def resources(host: Host, wiring: Wiring, facts: Facts, start: Start, given: Given) -> list[Resource]:
    """Return the units. The former relay is removed just before the sockets are opened."""
    stop = _stop(facts, start, given)
    unit = File(
        path=_UNIT_FILE,
        content=render(
            "relay.service.j2",
            host=host,
            socket=paths.SOCKET,
            user=paths.USER,
            command=_line(start.command),
            flags=[_line(flag) for flag in start.flags],
            reload_signal=start.reload_signal,
            takes_sockets=start.takes_sockets,
            binds=start.binds,
            state=paths.STATE,
            runtime=posixpath.basename(paths.RUN),
            executables=(*start.executables, _KILL) if start.executables else (),
        ),
        needs=tuple(command.id for command in stop),
    )
    free = (unit.id, *(resource.id for resource in given.former), *given.listens_after)
    file, socket = _sockets(host, wiring, facts, free) if start.takes_sockets else _no_sockets(free)
    service = Service(
        unit=paths.SERVICE,
        restart_on=(unit.id, start.artefact, _SOCKET, *start.reads),
        healthy=(start.healthy,),
        needs=(given.key, *(resource.id for resource in start.installed)),
    )
    return [*start.installed, file, *stop, unit, *given.former, socket, service]


def _sockets(host: Host, wiring: Wiring, facts: Facts, free: tuple[str, ...]) -> tuple[File, Service]:
    """Return the sockets that systemd holds, opened after `free`."""
    streams, datagrams = _streams(host, wiring, facts), _everywhere(host.ports.stun, facts)
    file = File(
        path=_SOCKET_FILE, content=render("relay.socket.j2", host=host, streams=streams, datagrams=datagrams)
    )
    return file, Service(unit=paths.SOCKET, restart_on=(file.id,), needs=free)


def _no_sockets(free: tuple[str, ...]) -> tuple[Absent, Service]:
    """Return the sockets closed after `free`. Their file stays until the relay runs without it."""
    socket = Service(unit=paths.SOCKET, enabled=False, running=False, needs=free)
    return Absent(path=_SOCKET_FILE, needs=(RUNNING,)), socket


def _stop(facts: Facts, start: Start, given: Given) -> list[Command]:
    """Return the stop of a relay that has opened its sockets itself, where systemd is to have them.

    systemd opens none for a service that runs. The unit on the host tells it until it is written.
    """
    unit = facts.files.get(_UNIT_FILE)
    if not start.takes_sockets or unit is None or f"Requires={paths.SOCKET}" in (unit.content or ""):
        return []
    return [
        Command(
            title="relay that holds its sockets stopped",
            argv=("systemctl", "stop", paths.SERVICE),
            unless=("sh", "-c", f"! systemctl is-active --quiet {paths.SERVICE}"),
            needs=(*(resource.id for resource in start.installed), *given.listens_after),
        )
    ]


def _streams(host: Host, wiring: Wiring, facts: Facts) -> list[str]:
    if wiring.relay.address:
        return [str(wiring.relay)]
    numbers = [wiring.relay.port, *([host.ports.http] if wiring.http_by == "relay" else [])]
    return [place for number in numbers for place in _everywhere(number, facts)]


def _everywhere(port: int, facts: Facts) -> list[str]:
    """Return a socket for each family: on a common one, IPv4 clients would have IPv6 addresses."""
    return [f"0.0.0.0:{port}", *([f"[::]:{port}"] if facts.has_ipv6 else [])]


def _line(words: tuple[str, ...]) -> str:
    """Return the words as a part of ExecStart."""
    return " ".join(map(_word, words))


def _word(text: str) -> str:
    """Return a text from the site file as one word of ExecStart.

    systemd would expand its % and $, and remove quotes and backslashes.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != text or "'" in text else text


def log(lines: int) -> tuple[str, ...]:
    """Return journalctl for the unit."""
    return ("journalctl", "--unit", paths.SERVICE, "--lines", str(lines), "--no-pager")


def log_of_client(key: str, field: str) -> tuple[str, ...]:
    """Return journalctl for the unit's entries with that key, with all their fields, or for the
    last ones where there is no field to look for."""
    return (*log(5), "--output", "json", f"{field}={key}") if field else log(500)


def in_its_network(program: tuple[str, ...]) -> tuple[str, ...]:
    """Return the program as it is: the service has the host's network."""
    return program


def has(listener: Listener, facts: Facts, processes: Set[str]) -> bool:
    """Whether it is a socket that systemd holds for the relay. Other listeners are our unit's."""
    unit = facts.files.get(_SOCKET_FILE)
    listens = re.findall(r"^Listen(Stream|Datagram)=(?:\S*:)?(\d+)$", (unit and unit.content) or "", re.M)
    kind = {"tcp": "Stream", "udp": "Datagram"}.get(listener.proto)
    return listener.program == "systemd" and (kind, str(listener.port)) in listens


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return both units, stopped, and the removal of their files."""
    return [
        Service(unit=paths.SERVICE, enabled=False, running=False, needs=needs),
        Service(unit=paths.SOCKET, enabled=False, running=False, needs=needs),
        Absent(path=_UNIT_FILE, needs=(f"service:{paths.SERVICE}",)),
        Absent(path=_SOCKET_FILE, needs=(f"service:{paths.SOCKET}",)),
    ]


def stopped() -> list[Resource]:
    """Return both units, disabled and stopped."""
    return [Service(unit=unit, enabled=False, running=False) for unit in (paths.SOCKET, paths.SERVICE)]
