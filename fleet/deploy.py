"""`invoke deploy`: converge, prove, register, in this order."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.shared import pins
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import HostJob
from fleet.shared.prove import compare_map, prove_hosts
from fleet.shared.registration import register
from fleet.shared.served import NO_HEADSCALE
from fleet.shared.step import run
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.derpmap import Unknown
from probe.proof import Proof


def deploy(fleet: Fleet, hosts: Sequence[Host], *, only: Sequence[str] = ()) -> int:
    """Every host in order; stops at the first that fails or is not proved. What is proved gets registered, also then.

    Returns the exit code.
    """
    proved: dict[str, Proof] = {}
    code = 0
    for host in hosts:
        try:
            if not _converge(fleet, host, only):
                code = 1
                break
        except Interrupted:
            raise
        except DerpfleetError as error:
            fleet.report.failure(error)
            code = error.exit_code
            break
        proofs = prove_hosts(fleet, [host], served=_not_yet(fleet, only))
        if not proofs[host.name].ok:
            fleet.report.say(f"{host.name} is deployed but NOT proved: it is not registered, and the hosts after it are left alone.")
            if fleet.site.headscale:
                fleet.report.say(f"A region that it has in the map from before stays there until: invoke withdraw --host {host.name}")
            code = 1
            break
        proved |= proofs
    if proved and not only:
        registered = [host for host in hosts if host.name in proved]
        served = register(fleet, registered)
        if fleet.site.headscale and not compare_map(fleet, registered, proved, served):
            code = 1
    return code


def _converge(fleet: Fleet, host: Host, only: Sequence[str]) -> bool:
    """Converge one host, keep its pin, show each resource that failed. Returns whether it converged."""
    job = HostJob(fleet, host, "apply", only)
    outcome = fleet.parallel.run_one(lambda: run(fleet, fleet.login(host), job))
    if pins.needed(host):
        pins.learn(fleet, host, outcome.facts)
    for failure in outcome.failures:
        fleet.report.failure(job.failed(failure), log=str(outcome.log), subject=failure.id)
    return outcome.ok


def _not_yet(fleet: Fleet, only: Sequence[str]) -> Unknown:
    """Return why the served map is not compared while a host is proved."""
    if fleet.site.headscale is None:
        return NO_HEADSCALE
    return Unknown("nothing is registered with --only" if only else "compared when it is registered")
