"""`invoke check`, and `invoke deploy --dry-run`: what a deploy would change."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from engine.report import closing
from engine.run import Verb
from fleet.shared.control_server import control_server
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import LeftWithdrawn, host_job, left_withdrawn
from fleet.shared.step import CHANGES_FOUND, run
from inventory.errors import DerpfleetError
from inventory.model import Host


def check(
    fleet: Fleet, hosts: Sequence[Host], *, only: Sequence[str] = (), include_withdrawn: bool = True
) -> int:
    """Compare all hosts at once and change nothing. Returns the exit code.

    It is 10 if a deploy would change anything, else 0. When a host fails, it is that of its error.
    `include_withdrawn`: as for a deploy.
    """
    changes, failed, left, lock = 0, [], set[str](), Lock()

    def one(host: Host) -> None:
        nonlocal changes
        if not host.managed:
            fleet.left_to_others(host, "only its region is compared")
            return
        try:
            job = host_job(fleet, host, Verb.CHECK, only, include_withdrawn=include_withdrawn)
            outcome = run(fleet, fleet.login(host), job)
        except LeftWithdrawn as error:
            left_withdrawn(fleet, host, error.state)
            left.add(host.name)
            return
        except DerpfleetError as error:
            error.host = error.host or host.name
            fleet.report.failure(error)
            with lock:
                failed.append((host.name, error.exit_code))
            return
        with lock:
            changes += outcome.counts["changed"]

    fleet.parallel.each(hosts, one)
    if not only and not failed:
        changes += control_server(fleet).check([host for host in hosts if host.name not in left])
    closing(fleet.report, [name for name, _ in failed], len(hosts))
    if failed:
        return max(code for _, code in failed)
    return CHANGES_FOUND if changes else 0
