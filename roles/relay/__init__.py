"""The relay: a program under a runner, with its keys.

`PROGRAMS` and `RUNNERS` are the tables. Those that are not chosen are removed: the runners before
the relay starts, the programs' files once it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, asked
from engine.resource import Resource
from engine.scripts import script
from inventory.choices import ProgramName, RunnerName
from inventory.model import Host, Site
from roles import ports
from roles.admission import verify_url
from roles.contract import Neighbours
from roles.relay import key
from roles.relay.contract import Given, Program, Runner
from roles.relay.programs import derper, ours
from roles.relay.runners import docker, systemd
from roles.wiring import Wiring, wire

PROGRAMS: Mapping[ProgramName, Program] = {"python": ours, "derper": derper}
RUNNERS: Mapping[RunnerName, Runner] = {"systemd": systemd, "docker": docker}


def program_of(host: Host) -> Program:
    """Return the module of the host's program."""
    return PROGRAMS[host.program]


def runner_of(host: Host) -> Runner:
    """Return the module of the host's runner."""
    return RUNNERS[host.runner]


def ask(host: Host) -> Ask:
    """Return the questions about ports, and those of the chosen program and runner.

    `docker container inspect` is among the first on every host. A relay that ran in a container
    until now still has the ports, and is not in the way of its successor.
    """
    return asked(ports.ASK, program_of(host).ASK, runner_of(host).ASK)


def resources(
    host: Host,
    site: Site,
    wiring: Wiring,
    facts: Facts,
    ship: Shipment,
    *,
    listens_after: tuple[str, ...],
    front_at: str,
) -> list[Resource]:
    """Return the relay with its keys.

    `listens_after`: as in `Given`. `front_at`: as for `Program.start`.
    """
    program, runner, made = program_of(host), runner_of(host), key.made(facts)
    start = program.start(host, site, wiring, facts, ship, front_at=front_at)
    former = [
        resource
        for other in RUNNERS.values()
        if other is not runner
        for resource in other.absent(needs=start.ready)
    ]
    given = Given(key=made.id, former=tuple(former), listens_after=listens_after)
    after = (runner.RUNNING,)
    return [
        made,
        *runner.resources(host, wiring, facts, start, given),
        *(replace(gone, needs=after) for gone in start.outdated),
        *(gone for other in PROGRAMS.values() if other is not program for gone in other.absent(needs=after)),
    ]


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of all runners, programs and keys after `needs`, but not of Docker."""
    stopped = tuple(runner.RUNNING for runner in RUNNERS.values())
    return [
        *(resource for runner in RUNNERS.values() for resource in runner.absent(needs=needs)),
        *(resource for program in PROGRAMS.values() for resource in program.absent(needs=stopped)),
        key.absent(needs=stopped),
    ]


def stopped() -> list[Resource]:
    """Return every relay, stopped now and after a reboot. Its installation stays."""
    return [
        replace(resource, role="relay") for runner in RUNNERS.values() for resource in runner.stopped()
    ]


def metrics(host: Host) -> tuple[str, ...]:
    """Return the words behind `python3 -I -c` that print the relay's metrics.

    Every program gives its metrics the same names.
    """
    page = program_of(host).metrics(host, wire(host))
    program = (script("fetch"), page.scheme, host.domain, str(page.port), page.path)
    return runner_of(host).in_its_network(program)


def log(host: Host, lines: int) -> tuple[str, ...]:
    """Return the command that prints the last lines of the relay's log."""
    return runner_of(host).log(lines)


def log_of_client(host: Host, key: str) -> tuple[str, ...]:
    """Return the command that prints the relay's log with its lines about a client.

    `key`: the client's public key, 64 hex digits.
    """
    return runner_of(host).log_of_client(key)


def in_its_network(host: Host, program: tuple[str, ...]) -> tuple[str, ...]:
    """Return `program` so that it runs where the relay runs; the words behind `python3 -I -c`."""
    return runner_of(host).in_its_network(program)


def ask_withdrawn(host: Host) -> Ask:
    """Return the facts that `is_withdrawn` needs."""
    return Ask(commands={"withdrawn": runner_of(host).WITHDRAWN.argv})


def is_withdrawn(host: Host, facts: Facts) -> bool:
    """Return whether the relay was taken out of service, which is another thing than being down."""
    said = facts.commands.get("withdrawn")
    return said is not None and (said.stdout + said.stderr).strip() == runner_of(host).WITHDRAWN.says


def warnings(host: Host, site: Site) -> list[str]:
    """Return a sentence if the relay is open to everybody without `relay.open`."""
    if verify_url(host, site) or host.relay.open:
        return []
    return [
        "the relay is open to everybody who finds it, as there is no headscale in the site to ask who may "
        f"use it: set hosts.{host.name}.relay.verify_client_url to one that knows, or "
        f"hosts.{host.name}.relay.open to true, if that is meant"
    ]


def processes() -> frozenset[str]:
    """Return the names of the relay's processes in a container, of every program and runner."""
    of_programs = (program.PROCESSES for program in PROGRAMS.values())
    return frozenset().union(*of_programs, *(runner.PROCESSES for runner in RUNNERS.values()))


def refusals(
    host: Host, site: Site, wiring: Wiring, facts: Facts, neighbours: Neighbours
) -> list[str]:
    """Return the reasons against the relay: taken ports, and those of its runner and program."""
    return [
        *ports.taken(host, facts, neighbours),
        *runner_of(host).refusals(host, wiring, facts),
        *program_of(host).refusals(host, site, facts),
    ]
