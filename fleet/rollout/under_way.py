"""A rollout under way: its state, its ledger, and what this controller knows of its hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.plan import Plan
from engine.rollout.machine import step
from engine.rollout.state import Rollout, RolloutEvent
from engine.run import Job, Verb
from fleet.rollout import show
from fleet.rollout.ledger import LedgerHead, RolloutLedger
from fleet.shared.confirm import about
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import host_job
from fleet.shared.prove import climb, targets
from inventory.model import Host
from probe.proof import Proof

ROLLOUT = "rollout"  # among the words of a generation
_FRESH_S = 60.0


@dataclass
class UnderWay:
    """A rollout that this controller carries out.

    `ledger`: None for a dry run. `fence`: the number of its lease. `refused`: the plans that the
    last rollout could not prove, by the host's name. `proofs`: those that have confirmed hosts.
    """

    fleet: Fleet
    head: LedgerHead
    state: Rollout
    ledger: RolloutLedger | None = None
    fence: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)
    proofs: dict[str, Proof] = field(default_factory=dict)
    _seen: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def id(self) -> str:
        """Return the rollout's id."""
        return self.head.rollout

    def take(self, event: RolloutEvent) -> None:
        """Take an event in, once it is in the ledger. Raises Unreachable when the lease is lost."""
        with self._lock:
            if self.ledger:
                self.ledger.note(event)
            before, self.state = self.state, step(self.state, event)
        show.changes(self.fleet.report, self.id, before, self.state, event)

    def job(self, host: Host, verb: Verb, plans: dict[str, str]) -> Job:
        """Return the job of a phase. `plans` gets the id of the plan and the words about it."""

        def words(plan: Plan) -> Mapping[str, str]:
            said = about(host, plan)
            plans.update(said, plan=plan.id)
            return {**said, ROLLOUT: self.id}

        job = host_job(self.fleet, host, verb, (), include_withdrawn=self.head.include_withdrawn)
        return replace(job, about=words, fence=self.fence)

    def is_served_elsewhere(self, host: Host) -> bool:
        """Return whether nodes have another relay while this one restarts.

        A host that was never confirmed serves nobody yet. Another relay was proved within the last
        minute, or is proved now.
        """
        if not self.state.hosts[host.name].generation:
            return True
        others = [one for one in self.fleet.site.hosts.values() if self._serves(one) and one is not host]
        if not others:
            return True
        return any(map(self._is_proved, others))

    def _serves(self, host: Host) -> bool:
        known = self.state.hosts.get(host.name)
        return known is not None and (known.generation > 0 or known.confirmed > 0)

    def _is_proved(self, host: Host) -> bool:
        if self._seen.get(host.name, -_FRESH_S) + _FRESH_S > time.monotonic():
            return True
        [proof] = self.climbed([host])
        return proof.ok

    def climbed(self, hosts: list[Host]) -> list[Proof]:
        """Return the proofs of these hosts, from now, without showing them."""
        proofs = climb(self.fleet, hosts, targets(self.fleet, hosts))
        now = time.monotonic()
        self._seen |= {host.name: now for host, proof in zip(hosts, proofs, strict=True) if proof.ok}
        return proofs

    def host(self, name: str) -> Host:
        """Return the host of that name. Raises NoSuchHost."""
        [found] = self.fleet.hosts([name])
        return found
