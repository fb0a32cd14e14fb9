"""The relay hosts: from the inside by their facts, from the outside by the ladder of the proof."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import roles
from control.served import Served
from engine.crash import made_of_facts
from engine.facts import Facts, asked
from fleet.doctor.diagnosis import Diagnosis, of_error
from fleet.shared.fleet import Fleet
from fleet.shared.prove import climb, targets
from inventory.auto_source import explain_source
from inventory.errors import DerpfleetError
from inventory.model import Host, Site
from probe.clock import apart
from probe.derpmap import with_map
from probe.proof import Proof
from probe.target import Target
from roles import relay
from roles.relay import OutOfService


@dataclass(frozen=True)
class InsideView:
    """The answers of one host. `state`: why its relay was taken out of service, if it was."""

    diagnoses: list[Diagnosis]
    state: OutOfService | None = None


def inside(fleet: Fleet, host: Host) -> InsideView:
    """Ask one host, in one session. Never raises: an error is a diagnosis."""
    if not host.managed:
        words = "somebody else runs it (managed: false), so nobody logs in"
        return InsideView([Diagnosis(host=host.name, check="login", status="skipped", what=words)])
    ask = asked(roles.ask(host, fleet.site), relay.ASK_WITHDRAWN)
    try:
        with (
            fleet.session_for_reading(fleet.login(host), ask) as session,
            made_of_facts(host.name),
        ):
            found = list(of_facts(host, fleet.site, session.facts, now=time.time()))
            return InsideView(found, relay.out_of_service(session.facts))
    except DerpfleetError as error:
        return InsideView([of_error(host.name, "login", error)])


def of_facts(host: Host, site: Site, facts: Facts, *, now: float) -> Iterator[Diagnosis]:
    """Yield the system, the clock, and every refusal and warning of a deploy, without a plan.

    `now`: this controller's clock when the host gave its own, in seconds since the epoch.
    """
    system = f"{facts.os_id} {facts.os_version}, {facts.arch}, Python {'.'.join(map(str, facts.python))}"
    yield Diagnosis(host=host.name, check="login", status="ok", what=system)
    ahead = timedelta(seconds=facts.now - now)
    if words := apart(ahead):
        yield Diagnosis(
            host=host.name,
            check="clock",
            status="failed",
            what=words,
            why="certificates are valid by the clock, and an ACME server refuses a wrong one",
            next="timedatectl on both; the clock that differs from the other hosts' too is the wrong one",
        )
    else:
        yield Diagnosis(host=host.name, check="clock", status="ok", what="agrees with this controller's")
    if chosen := explain_source(host):
        yield Diagnosis(host=host.name, check="certificate", status="ok", what=chosen)
    refusals, warnings = roles.refusals(host, site, facts), roles.warnings(host, site, facts)
    why = "a deploy refuses this before it changes anything"
    step = f"do as it says, then: invoke doctor --host {host.name}"
    for what in refusals:
        yield Diagnosis(host=host.name, check="deploy", status="failed", what=what, why=why, next=step)
    why = "a deploy warns of this and goes on"
    step = f"do as it says if it is not meant, then: invoke deploy --host {host.name}"
    for what in warnings:
        yield Diagnosis(host=host.name, check="deploy", status="warning", what=what, why=why, next=step)
    if not refusals and not warnings:
        yield Diagnosis(host=host.name, check="deploy", status="ok", what="nothing is in the way")


@dataclass(frozen=True)
class OutsideView:
    """The ladders of the chosen hosts, by name; or `trouble`: why none was climbed."""

    ladders: Mapping[str, tuple[Target, Proof]]
    trouble: DerpfleetError | None = None

    def diagnoses(self, host: Host, served: Served) -> list[Diagnosis]:
        """Return the diagnoses about one host. `served`: the map to compare its relay with."""
        if self.trouble is not None:
            return [of_error(host.name, "from outside", self.trouble)]
        target, proof = self.ladders[host.name]
        return list(of_proof(host, with_map(proof, target, served)))


def outside(fleet: Fleet, hosts: Sequence[Host]) -> OutsideView:
    """Climb the ladder of all hosts at once, and keep no proof. Never raises."""
    try:
        wanted = targets(fleet, hosts)
        pairs = zip(wanted, climb(fleet, hosts, wanted), strict=True)
        return OutsideView({target.name: (target, proof) for target, proof in pairs})
    except DerpfleetError as error:
        return OutsideView({}, trouble=error)


def of_proof(host: Host, proof: Proof) -> Iterator[Diagnosis]:
    """Yield the certificate, each broken rung, each warning, and the number of those that hold."""
    for rung in proof.rungs:
        if rung.status == "failed":
            yield Diagnosis(
                host=host.name, check=rung.title, status="failed",
                what=rung.detail, why=rung.cause, next=rung.next,
            )
        elif rung.warning:
            yield Diagnosis(
                host=host.name, check=rung.title, status="warning",
                what=rung.warning, why=rung.detail, next=f"invoke verify --host {host.name}",
            )
    certificate = proof["tls"]
    if certificate.status == "ok":
        yield Diagnosis(host=host.name, check="certificate", status="ok", what=certificate.detail)
    count = sum(rung.status == "ok" for rung in proof.rungs)
    yield Diagnosis(
        host=host.name,
        check="from outside",
        status="ok" if proof.ok else "skipped",
        what=f"{count} rungs hold"
        + ("" if proof.ok else "; those above a broken one are not known until it is fixed"),
    )
