"""`invoke renew`: renew certificates now, as the hosts' timers would, and prove the new ones."""

from __future__ import annotations

from collections.abc import Sequence

import roles
from control.served import Unknown
from engine.run import Job, Verb
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.out_of_service import back_by
from fleet.shared.prove import prove_hosts
from fleet.shared.step import step
from inventory.choices import source_of
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles import relay
from roles.certificate import renewal
from roles.relay import OutOfService


def renew(fleet: Fleet, hosts: Sequence[Host], *, force: bool) -> int:
    """Renew every ACME certificate, one host after the other, as an ACME server counts failures.

    Returns the exit code.
    """
    renewable = [host for host in hosts if host.managed and source_of(host).is_acme]
    for host in hosts:
        if not host.managed:
            fleet.left_to_others(host, "its certificate is renewed there")
        elif host not in renewable:
            words = f"nothing to renew: certificate.source is {host.source}"
            fleet.report.line(host.name, "skipped", words)
    code = 0
    for host in renewable:
        try:
            state = _renew(fleet, host, force=force)
        except Interrupted:
            raise
        except DerpfleetError as error:
            fleet.report.failure(error)
            code = max(code, error.exit_code)
            continue
        if state:
            fleet.report.emit(event=str(state), host=host.name)
            words = f"{state}: there is no relay to prove; {back_by(host, state)} brings it back"
            fleet.report.line(host.name, "ok", words)
        elif not prove_hosts(fleet, [host], served=Unknown("not asked for after a renewal"))[host.name].ok:
            code = code or 1
    return code


def _renew(fleet: Fleet, host: Host, *, force: bool) -> OutOfService | None:
    """Renew one certificate, or show that it is not overdue. Returns why its relay does not run.

    Raises ResourceFailed, Unreachable, Interrupted.
    """
    outcome = step(fleet, fleet.login(host), _renewal(host, force=force), doing="renewing", counts=False)
    if not outcome.changed:
        words = "its certificate is not overdue: the host's timer renews it in time, and --force at once"
        fleet.report.line(host.name, "ok", words)
    return relay.out_of_service(outcome.facts)


def _renewal(host: Host, *, force: bool) -> Job:
    """Return the job: renew as the host's timer does. It asks first whether the relay is stopped.

    The reason of a failure says which certificate is served: the host's program asks.
    """
    return Job(
        verb=Verb.RENEW,
        plan=lambda session: renewal.run(host, session.facts, force=force),
        ask=relay.ASK_WITHDRAWN,
        places=roles.ROLES,
        trouble="the certificate was not renewed",
        next=f"fix the cause, then run: invoke renew --host {host.name}",
    )
