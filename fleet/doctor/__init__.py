"""`invoke doctor`: everything that is wrong or will be, in one look that changes nothing.

It is `check` without a plan and `verify` without a kept proof. A host costs one session, and those
of the proof; all hosts are asked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import inventory
from control.contract import Look
from control.served import Served, Unknown
from fleet.doctor import controller, hosts
from fleet.doctor.diagnosis import SITE, Diagnosis, exit_code, of_error, show
from fleet.doctor.hosts import InsideView, OutsideView
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.model import Host


def doctor(fleet: Fleet, chosen: Sequence[Host], *, before: bool) -> int:
    """Look at everything, and show each diagnosis with its reason and the next step.

    `before`: before the first deploy; nothing is asked for that a deploy sets up. Returns the exit
    code.
    """
    here: list[Diagnosis] = []
    site: list[Diagnosis] = []
    server: list[tuple[Diagnosis, Served]] = []
    insides: dict[str, InsideView] = {}
    outsides: list[OutsideView] = []

    def see(host: Host) -> None:
        insides[host.name] = hosts.inside(fleet, host)

    fleet.report.doing(SITE, "looking")
    work: list[Callable[[], object]] = [
        lambda: here.extend(controller.diagnoses(fleet)),
        lambda: site.extend(of_site(fleet, [host.name for host in chosen])),
        lambda: server.append(of_control_server(fleet)),
        *(partial(see, host) for host in chosen),
        *([] if before else [lambda: outsides.append(hosts.outside(fleet, chosen))]),
    ]
    fleet.parallel.each(work, lambda one: one())
    fleet.report.doing(SITE, "")
    [(of_server, served)] = server
    found = [*here, *site, of_server]
    for host in chosen:
        inside = insides[host.name]
        unseen = "with --before" if before else f"as the relay is {inside.state}" if inside.state else ""
        beyond = [_unseen(host, unseen)] if unseen else outsides[0].diagnoses(host, served)
        found += [*inside.diagnoses, *beyond]
    for one in found:
        show(fleet.report, one)
    fleet.report.say(summary(found))
    return exit_code(found)


def of_site(fleet: Fleet, names: Collection[str]) -> list[Diagnosis]:
    """Return the problems of local files and of names. The site file itself was read before."""
    files = inventory.file_problems(fleet.site, only=names)
    wrong_names = inventory.resolve_problems(fleet.site, only=names)
    kinds = (
        ("files", files, "keys, certificates, images and secrets that the site file names can be read"),
        ("names", wrong_names, "each name leads to its addresses in the site file"),
    )
    found = []
    for check, problems, fine in kinds:
        found += [
            Diagnosis(
                host=SITE, check=check, status="failed", what=str(problem),
                why="a deploy refuses this before it contacts a host",
                next=f"correct it, or that line of {fleet.site.path}",
                exit_code=inventory.SiteError.exit_code,
            )
            for problem in problems
        ]
        if not problems:
            found.append(Diagnosis(host=SITE, check=check, status="ok", what=fine))
    return found


def of_control_server(fleet: Fleet) -> tuple[Diagnosis, Served]:
    """Return the diagnosis about the control server, and the map to compare the relays with."""
    server, name = control_server(fleet), fleet.site.control.kind
    try:
        look = server.look()
    except DerpfleetError as error:
        return of_error(name, "map", error), Unknown(f"the map is not known: {error.what}")
    if look is None:
        return _pasted(name), server.unasked("")
    return _seen(fleet, name, look), look.served


def _pasted(name: str) -> Diagnosis:
    words = "a person pastes the map, so it is not compared"
    step = "invoke derpmap prints the map to compare it with"
    return Diagnosis(host=name, check="map", status="skipped", what=words, next=step)


def _seen(fleet: Fleet, name: str, look: Look) -> Diagnosis:
    missing = [host for host in fleet.site.hosts if host not in look.in_map]
    what = f"{look.program}; in its map: {', '.join(sorted(look.in_map)) or 'no host of the site'}"
    if not missing:
        return Diagnosis(host=name, check="map", status="ok", what=what)
    return Diagnosis(
        host=name,
        check="map",
        status="warning",
        what=f"{what}; not in it: {', '.join(missing)}",
        why="a region enters the map after its relay is proved, and leaves it by a withdrawal",
        next=f"invoke deploy --host {missing[0]}",
    )


def _unseen(host: Host, why: str) -> Diagnosis:
    step = f"invoke deploy --host {host.name}, which also proves it"
    return Diagnosis(
        host=host.name, check="from outside", status="skipped", what=f"not looked at, {why}", next=step
    )


def summary(found: Sequence[Diagnosis]) -> str:
    """Return the last line: how many have failed, and what to do first."""
    failed = [one for one in found if one.status == "failed"]
    warned = sum(one.status == "warning" for one in found)
    warnings = f"; warnings: {warned}" if warned else ""
    if not failed:
        return f"nothing is wrong{warnings}"
    return f"{len(failed)} of {len(found)} checks failed{warnings}. Begin with the first of them."
