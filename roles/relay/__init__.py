"""The relay: a program under a runner, with its keys and its judge of who may use it.

`PROGRAM_MODULES`, `RUNNER_MODULES` and `ADMISSION_MODULES` are the tables. Those that are not
chosen are removed: the runners before the relay starts, the files of the others once it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from artefacts.shipment import Shipment
from engine.facts import Ask, Facts, Listener, asked
from engine.resource import Absent, File, Resource
from engine.scripts import script
from inventory.admission import admission_name
from inventory.choices import ADMISSIONS, AdmissionName, ProgramName, RunnerName, runner_of
from inventory.model import Host, Site
from roles import paths, ports
from roles.contract import Neighbours, Question
from roles.relay import key, releases
from roles.relay.admissions import everyone, joined, keys, tailscaled, url
from roles.relay.contract import Given, Inquiry, Judge, Program, Runner
from roles.relay.programs import derper, ours
from roles.relay.runners import docker, supervisord, systemd
from roles.wiring import Wiring, wire

PROGRAM_MODULES: Mapping[ProgramName, Program] = {"python": ours, "derper": derper}
ADMISSION_MODULES: Mapping[AdmissionName, Judge] = {
    **dict.fromkeys((word for word, rule in ADMISSIONS.items() if rule.url), url),
    "tailscaled": tailscaled,
    "keys": keys,
    "open": everyone,
}
RUNNER_MODULES: Mapping[RunnerName, Runner] = {
    "systemd": systemd,
    "docker": docker,
    "supervisord": supervisord,
}


class OutOfService(StrEnum):
    """Why a relay does not run: it was stopped on purpose. The host keeps the word."""

    WITHDRAWN = "withdrawn"  # its region is out of the map
    DRAINED = "drained"  # for work on its host; its region is in the map


ASK_WITHDRAWN = Ask(files=(paths.WITHDRAWN,))
WITHDRAWAL = Question(("ls", paths.WITHDRAWN), says=paths.WITHDRAWN)
"""Asks the same on the host itself."""


ASK_PORTS = asked(*(runner.ASK_PORTS for runner in RUNNER_MODULES.values()))
"""The questions of `is_ours`."""


def chosen_program(host: Host) -> Program:
    """Return the module of the host's program."""
    return PROGRAM_MODULES[host.program]


def chosen_runner(host: Host) -> Runner:
    """Return the module of the host's runner."""
    return RUNNER_MODULES[host.runner]


def chosen_judge(host: Host, site: Site) -> Judge:
    """Return the module of the host's judge."""
    return joined if host.relay.tailscaled.manage else ADMISSION_MODULES[admission_name(host, site)]


def judges() -> list[Judge]:
    """Return the modules of all judges, each once: of the table, and of a tailscaled of our own."""
    return list(dict.fromkeys((*ADMISSION_MODULES.values(), joined)))


def ask(host: Host, site: Site) -> Ask:
    """Return the questions about ports, and those of the chosen program, runner and judge.

    Every runner's are among the first. A relay that ran in a container until now still has the
    ports, and is not in the way of its successor.
    """
    kept = Ask() if runner_of(host).in_container else releases.ASK
    judge, program, runner = chosen_judge(host, site), chosen_program(host), chosen_runner(host)
    known_by = Ask(files=tuple(path for other in judges() for path in other.KNOWN_BY))
    return asked(ports.ASK, ASK_PORTS, kept, known_by, program.ASK, runner.ASK, judge.ask(host, site))


def resources(
    host: Host,
    site: Site,
    wiring: Wiring,
    facts: Facts,
    ship: Shipment,
    *,
    listens_after: tuple[str, ...],
) -> list[Resource]:
    """Return the relay with its keys. `listens_after`: as in `Given`."""
    program, runner, made = chosen_program(host), chosen_runner(host), key.made(facts)
    judge = chosen_judge(host, site)
    start = program.start(host, wiring, facts, ship, judge.admitting(host, site, facts, ship))
    former = [
        resource
        for other in RUNNER_MODULES.values()
        if other is not runner and _may_be_here(other, facts)
        for resource in other.absent(needs=start.ready)
    ]
    given = Given(key=made.id, former=tuple(former), listens_after=listens_after)
    after = (runner.RUNNING,)
    installed = {resource.owned_path() for resource in start.installed}
    unused = [
        *releases.unused(needs=after),
        *(
            gone
            for other in PROGRAM_MODULES.values()
            if other is not program
            for gone in other.absent(needs=after)
        ),
    ]
    return [
        Absent(path=paths.WITHDRAWN),
        made,
        *runner.resources(host, wiring, facts, start, given),
        *(replace(gone, needs=after) for gone in start.outdated),
        *(gone for gone in unused if gone.owned_path() not in installed),
        *(
            gone
            for other in judges()
            if other is not judge and _may_be_here(other, facts)
            for gone in other.absent(needs=after)
        ),
    ]


def _may_be_here(part: Runner | Judge, facts: Facts) -> bool:
    return not part.KNOWN_BY or any(path in facts.files for path in part.KNOWN_BY)


def absent(*, needs: tuple[str, ...] = ()) -> list[Resource]:
    """Return the removal of all runners, programs, keys and the note of a withdrawal after `needs`.

    Docker stays.
    """
    stopped = tuple(runner.RUNNING for runner in RUNNER_MODULES.values())
    return [
        *(resource for runner in RUNNER_MODULES.values() for resource in runner.absent(needs=needs)),
        *releases.absent(needs=stopped),
        *(resource for program in PROGRAM_MODULES.values() for resource in program.absent(needs=stopped)),
        *(resource for judge in judges() for resource in judge.absent(needs=stopped)),
        key.absent(needs=stopped),
        Absent(path=paths.WITHDRAWN, needs=stopped),
    ]


def stopped(state: OutOfService) -> list[Resource]:
    """Return every relay, stopped now and after a reboot, with the note that says why.

    Its installation stays.
    """
    found = [resource for runner in RUNNER_MODULES.values() for resource in runner.stopped()]
    needs = tuple(resource.id for resource in found)
    note = File(path=paths.WITHDRAWN, content=f"{state}\n".encode(), needs=needs)
    return [replace(resource, role="relay") for resource in (*found, note)]


def metrics(host: Host) -> tuple[str, ...]:
    """Return the words behind `python3 -I -c` that print the relay's metrics.

    Every program gives its metrics the same names.
    """
    page = chosen_program(host).metrics(host, wire(host))
    program = (script("fetch"), page.scheme, host.domain, page.at, page.path)
    return chosen_runner(host).in_its_network(program)


def log_of_client(host: Host, key: str) -> tuple[str, ...]:
    """Return the command that prints what the relay logged last of the client of that key, and
    maybe of others."""
    return chosen_runner(host).log_of_client(key, chosen_program(host).KEY_FIELD)


def out_of_service(facts: Facts) -> OutOfService | None:
    """Return why the relay was stopped on purpose, which is another thing than being down.

    `facts` have to answer `ASK_WITHDRAWN`. Notes of earlier versions are empty: withdrawn.
    """
    note = facts.files.get(paths.WITHDRAWN)
    if note is None:
        return None
    is_drained = (note.content or "").strip() == OutOfService.DRAINED
    return OutOfService.DRAINED if is_drained else OutOfService.WITHDRAWN


def inquiry(host: Host, site: Site, key: str) -> Inquiry | None:
    """Return the question about a node key, to be asked where the relay runs.

    None when the relay asks nobody.
    """
    found = chosen_judge(host, site).inquiry(host, site, key)
    return found and replace(found, program=chosen_runner(host).in_its_network(found.program))


def warnings(host: Host, site: Site, facts: Facts) -> list[str]:
    """Return the warnings of the judge of who may use the relay."""
    return chosen_judge(host, site).warnings(host, facts)


def is_ours(listener: Listener, facts: Facts) -> bool:
    """Whether a listener is the relay's, under any runner, or another unit's of ours."""
    processes = {name for program in PROGRAM_MODULES.values() for name in program.PROCESSES}
    return listener.unit.startswith("derpfleet-") or any(
        runner.has(listener, facts, processes) for runner in RUNNER_MODULES.values()
    )


def refusals(
    host: Host, site: Site, wiring: Wiring, facts: Facts, neighbours: Neighbours
) -> list[str]:
    """Return the reasons against the relay: taken ports, and those of its runner and program."""
    return [
        *ports.taken(host, wiring, facts, neighbours),
        *chosen_runner(host).refusals(host, wiring, facts),
        *chosen_program(host).refusals(host, site, facts),
        *chosen_judge(host, site).refusals(host, facts),
    ]
