"""`invoke renew`: what the host's timer does, now, and the proof that the new certificate is served."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.context import Fleet, Interrupted
from fleet.deploy import ResourceFailed
from fleet.prove import prove_hosts
from inventory.choices import source_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import relay
from roles.certificate import renewal


def renew(fleet: Fleet, hosts: Sequence[Host], *, force: bool) -> int:
    """Every host with an ACME certificate, one after the other: an ACME server counts failures. Returns the exit code."""
    renewable = [host for host in hosts if source_of(host).is_acme]
    for host in hosts:
        if host not in renewable:
            fleet.report.line(host.name, "skipped", f"certificate.source is {host.certificate.source}: nothing to renew")
    code = 0
    for host in renewable:
        try:
            withdrawn = _renew(fleet, host, force=force)
        except Interrupted:
            raise
        except DerpfleetError as error:
            fleet.report.failure(error)
            code = max(code, error.exit_code)
            continue
        if withdrawn:
            fleet.report.emit(event="withdrawn", host=host.name)
            fleet.report.line(host.name, "ok", f"withdrawn: there is no relay to prove; invoke deploy --host {host.name} brings it back")
        elif not prove_hosts(fleet, [host], served=lambda _: "not asked for after a renewal")[host.name].ok:
            code = code or 1
    return code


def _renew(fleet: Fleet, host: Host, *, force: bool) -> bool:
    """Says when nothing was due. Returns whether the host is withdrawn. Raises ResourceFailed, Unreachable, Interrupted."""
    fleet.report.doing(host.name, "renewing")
    outcome = fleet.alone(
        lambda: fleet.converge(
            fleet.login(host),
            lambda session: renewal.run(host, session.facts, force=force),
            ask=relay.ask_withdrawn(host),
            verb="renew",
        )
    )
    for failure in outcome.failures:
        raise ResourceFailed(
            "the certificate was not renewed; the old one is still served",
            host=host.name,
            where=failure.id,
            why=f"{failure.what}\n{failure.why}",
            next=f"mend the cause, then invoke renew --host {host.name}",
        )
    if not outcome.changed:
        fleet.report.line(host.name, "ok", "its certificate is not due; --force renews it all the same")
    return relay.is_withdrawn(host, outcome.facts)
