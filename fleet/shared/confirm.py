"""Confirm a plan by a proof from outside, or have the host take it back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from control.served import Served
from engine.crash import made_of_facts
from engine.plan import Plan
from engine.resource import Container, Tree
from engine.run import Job, Outcome
from engine.session import Session
from fleet.shared import pins
from fleet.shared.fleet import Fleet
from fleet.shared.prove import climb, derper_of, prove_hosts, remember_derper, targets, was_proved
from fleet.shared.seen import former, settings
from fleet.shared.step import run, show_failures
from fleet.shared.verdict import Conclusion, Try, judged
from inventory.model import Host
from probe.proof import Proof
from roles import paths

DERPER = "derper"  # among the words of a generation
PAUSE_S = 5.0  # between two tries
TAKEN_BACK, STUCK, UNDECIDED = 7, 8, 6
"""Exit codes of a plan that was not kept, when the host is as it was, when it is not, and when the
fault may be our own line."""


def about(host: Host, plan: Plan) -> Mapping[str, str]:
    """Return the words that are kept with a generation: its release, and how it is seen.

    With the derper whose mesh key the host has, as that key is no longer known once the site file
    names another. Raises ImageError.
    """
    found = [
        *(f"relay {one.name.rpartition('/')[2]}" for one in plan.resources if _is_release(one)),
        *(f"image {one.image}" for one in plan.resources if isinstance(one, Container) and one.running),
    ]
    derper = derper_of(host)
    known = {DERPER: derper} if derper else {}
    return {"release": ", ".join(found), "seen": settings(host), **known}


def _is_release(resource: object) -> bool:
    return isinstance(resource, Tree) and resource.path.startswith(f"{paths.RELEASES}/")


@dataclass
class Confirmation:
    """The judge of one host's armed plan. `proof` is the last one that it has made.

    `served`: the map to compare with, where it is known. `leaves`: leave a plan that is not proved
    as it is, unconfirmed, to be looked at. `is_part`: the plan has --only: once it is proved it
    stays, until a whole plan is proved with it and becomes a generation. `former`: the host as it
    is after the way back. `derper`: the one whose mesh key the host has, "" for the site file's.
    """

    fleet: Fleet
    host: Host
    served: Served | None
    leaves: bool = False
    is_part: bool = False
    proof: Proof | None = None
    verdict: Conclusion | None = None
    former: Host | None = None
    derper: str = ""

    def __call__(self, outcome: Outcome, session: Session) -> None:
        """Keep the plan, have it taken back, or leave it."""
        remember_derper(self.fleet, self.host, self.derper)
        if outcome.ok:
            self.learn_pin(outcome)
            self._try(session)
        proof = self.proof if self.verdict is Conclusion.PROVED else None
        if proof is not None and not self.is_part:
            session.keep({"proved": f"{proof.ms / 1000:.1f} s"})
        elif proof is not None or self.leaves or not session.generation:
            session.leave()
        else:
            generation = session.history().find(session.generation)
            known = generation.about if generation else {}
            self.former, self.derper = former(self.host, known.get("seen", "")), known.get(DERPER, "")
            remember_derper(self.fleet, self.host, self.derper)
            session.back()

    def learn_pin(self, outcome: Outcome) -> None:
        """Keep the pin of the certificate that the host has now, if clients need it."""
        if pins.needed(self.host):
            with made_of_facts(self.host.name):
                pins.learn(self.fleet, self.host, outcome.facts)

    def _try(self, session: Session) -> None:
        """Prove until there is a verdict. A first deploy has nothing to go back to: one try."""
        tries: list[Try] = []
        while True:
            session.hold()
            found = prove_hosts(self.fleet, [self.host], served=self.served, derper=self.derper)
            self.proof = found[self.host.name]
            broken = self.proof.failed_rung
            tries.append(Try(broken.name if broken else "", self._control() if broken else None))
            self.verdict = judged(tries)
            if self.verdict is not None or not session.generation or session.is_stopping:
                return
            words = f"not proved, try {len(tries)}; the next one is in {PAUSE_S:.0f} s"
            self.fleet.report.line(self.host.name, "waiting", words)
            time.sleep(PAUSE_S)

    def _control(self) -> bool | None:
        """Return whether another relay of the site, proved before, is proved now. None without."""
        others = [one for one in self.fleet.site.hosts.values() if one is not self.host]
        for other in others:
            if was_proved(self.fleet, other):
                [proof] = climb(self.fleet, [other], targets(self.fleet, [other]))
                self.fleet.report.line(other.name, "control", "proved" if proof.ok else "not proved, either")
                return proof.ok
        return None


def run_confirmed(fleet: Fleet, host: Host, job: Job, judge: Confirmation) -> Outcome:
    """Run a job with that judge. Ctrl-C stops it. Raises as `fleet.shared.step.run` does."""
    return fleet.parallel.run_one(lambda: run(fleet, fleet.login(host), job, judge=judge))


def after_going_back(fleet: Fleet, host: Host, job: Job, outcome: Outcome, judge: Confirmation) -> int:
    """Prove a host again whose plan was taken back. Returns the exit code."""
    show_failures(fleet, job, outcome, outcome.astray)
    then = judge.former or host
    proof = prove_hosts(fleet, [then], served=judge.served, derper=judge.derper)[host.name]
    judge.proof = proof
    if outcome.generation and proof.ok:
        fleet.report.say(
            f"{host.name}: the new state was not confirmed and is taken back; generation "
            f"{outcome.generation} is in force again, and PROVED."
        )
        return UNDECIDED if judge.verdict is Conclusion.INCONCLUSIVE else TAKEN_BACK
    fleet.report.say(
        f"{host.name} is NOT proved after the way back, and serves as it can. Look at it: "
        f"invoke logs --host {host.name}; take it out of service: invoke withdraw --host {host.name}"
    )
    return STUCK
