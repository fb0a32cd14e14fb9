"""`invoke deploy` and `invoke check`: converge, prove, register, in this order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Lock

import roles
from engine.facts import Facts
from engine.plan import Mode
from engine.report import closing
from engine.resource import Resource
from engine.run import Compile, Failure, Outcome
from engine.session import Session
from engine.ship import Shipment, make_shipment
from fleet import pins
from fleet.context import CHECKOUT, DEPLOY, Fleet, Interrupted
from fleet.prove import compare_map, prove_hosts, prover
from fleet.register import check_registration, register
from fleet.served import NO_HEADSCALE
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.proof import Proof
from roles import sites

CHANGES_FOUND = 10


class Refused(DerpfleetError):
    """Something on the host stands in the way; nothing was changed."""


class ResourceFailed(DerpfleetError):
    """A resource did not converge."""


def deploy(fleet: Fleet, hosts: Sequence[Host], *, only: Sequence[str] = ()) -> int:
    """Every host in order; stops at the first that fails or is not proved. What is proved gets registered, also then.

    Returns the exit code.
    """
    proved: dict[str, Proof] = {}
    code = 0
    for host in hosts:
        try:
            if not run_host(fleet, host, "apply", only=only):
                code = 1
                break
        except Interrupted:
            raise
        except DerpfleetError as error:
            fleet.report.failure(error)
            code = error.exit_code
            break
        proofs = prove_hosts(fleet, [host], served=lambda fleet: _not_yet(fleet, only))
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


def _not_yet(fleet: Fleet, only: Sequence[str]) -> str:
    """Why the served map is not compared while a host is proved."""
    if fleet.site.headscale is None:
        return NO_HEADSCALE
    return "nothing is registered with --only" if only else "compared when it is registered"


def check(fleet: Fleet, hosts: Sequence[Host], *, only: Sequence[str] = ()) -> int:
    """Compares all hosts at once and changes nothing. Returns the exit code: 0, or 10 when something would change."""
    changes, failed, lock = 0, [], Lock()

    def one(host: Host) -> None:
        nonlocal changes
        try:
            outcome = converge_host(fleet, host, "check", only=only)
        except DerpfleetError as error:
            error.host = error.host or host.name
            fleet.report.failure(error)
            with lock:
                failed.append((host.name, error.exit_code))
            return
        with lock:
            changes += outcome.counts["changed"]

    fleet.each(hosts, one)
    if not only and not failed:
        changes += check_registration(fleet, hosts)
    closing(fleet.report, [name for name, _ in failed], len(hosts))
    if failed:
        return max(code for _, code in failed)
    return CHANGES_FOUND if changes else 0


def run_host(fleet: Fleet, host: Host, mode: Mode, *, only: Sequence[str] = ()) -> bool:
    """Converges one host and shows what failed. Returns whether it converged."""
    outcome = fleet.alone(lambda: converge_host(fleet, host, mode, only=only))
    for failure in outcome.failures:
        fleet.report.failure(_explain(host, failure, outcome), log=str(outcome.log), subject=failure.id)
    return outcome.ok


def converge_host(fleet: Fleet, host: Host, mode: Mode, *, only: Sequence[str] = ()) -> Outcome:
    """One run on one relay host. Raises DerpfleetError for everything that is not a failed resource."""
    started = time.monotonic()
    fleet.report.doing(host.name, "connecting")
    try:
        outcome = fleet.converge(
            fleet.login(host),
            _compile(fleet, host),
            ask=roles.ask(host, fleet.site),
            verb="check" if mode == "check" else DEPLOY,
            mode=mode,
            only=only,
            afterwards=(lambda _: pins.ask(host)) if mode == "apply" and pins.needed(host) else None,
        )
    except DerpfleetError:
        fleet.report.doing(host.name, "")
        raise
    if mode == "apply" and pins.needed(host):
        pins.learn(fleet, host, outcome.facts)
    fleet.report.counts(host.name, outcome.counts, checking=mode == "check", seconds=time.monotonic() - started)
    return outcome


def _compile(fleet: Fleet, host: Host) -> Compile:
    def compile_(session: Session) -> list[Resource]:
        facts = session.facts
        reasons = roles.refusals(host, fleet.site, facts)
        if reasons:
            raise Refused("nothing was changed, because something is in the way", host=host.name, why="\n".join(reasons))
        _tell_neighbours(fleet, host, facts)
        for warning in roles.warnings(host, fleet.site, facts):
            fleet.report.emit(event="warning", host=host.name, text=warning)
            fleet.report.line(host.name, "warning", warning)
        return roles.compile_host(host, fleet.site, facts, shipment(fleet, host, facts))

    return compile_


def _tell_neighbours(fleet: Fleet, host: Host, facts: Facts) -> None:
    """Lists what others serve with the host's nginx, before anything is changed."""
    urls = [watch.url for watch in sites.watches(facts)]
    if urls:
        fleet.report.emit(event="neighbours", host=host.name, urls=urls)
        fleet.report.line(host.name, "", f"its nginx serves others, too, who have to answer as before: {', '.join(urls)}")


def shipment(fleet: Fleet, host: Host, facts: Facts) -> Shipment:
    """What the controller makes for this host: the release for its Python, certbot, the prover's public keys."""

    def progress(text: str) -> None:
        fleet.report.doing(host.name, text)

    return make_shipment(host, fleet.site, facts, cache=CHECKOUT / ".cache", mesh_key=prover(fleet, host).mesh_key, progress=progress)


def _explain(host: Host, failure: Failure, outcome: Outcome) -> ResourceFailed:
    role = outcome.roles.get(failure.id, "")
    return ResourceFailed(
        failure.what,
        host=host.name,
        where=f"{roles.ROLES.get(role, 'roles/')} -> {failure.id}",
        why=failure.why,
        next=f"mend it, then invoke deploy --host {host.name}: it goes on from there",
    )
