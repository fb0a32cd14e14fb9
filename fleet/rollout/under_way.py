"""A rollout under way: its state, its ledger, and what this controller knows of its hosts."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from engine.facts import Ask, asked
from engine.generations import Generation
from engine.plan import Plan
from engine.rollout.machine import step
from engine.rollout.progress import waves_over
from engine.rollout.state import BUSY, HostState, Rollout, RolloutEvent
from engine.run import Job, Verb
from fleet.rollout import hooks, show
from fleet.rollout.ledger import RolloutLedger
from fleet.shared import cut_over, past
from fleet.shared.confirm import ROLLOUT, about
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import host_job
from fleet.shared.last_rollout import LedgerHead
from fleet.shared.prove import climb, targets
from fleet.shared.seen import as_kept
from fleet.shared.verdict import broken_rungs
from inventory.model import Host
from probe.proof import Proof

_FRESH_S = 60.0
_CONTROLS = 3  # so many relays are asked, whether there is one that is proved


@dataclass
class UnderWay:
    """A rollout that this controller carries out.

    `ledger`: None for a dry run. `fence`: the number of its lease. `proofs`: those that have
    confirmed hosts.
    """

    fleet: Fleet
    head: LedgerHead
    state: Rollout
    ledger: RolloutLedger | None = None
    fence: int = 0
    proofs: dict[str, Proof] = field(default_factory=dict)
    _as_is: dict[str, tuple[Host, str]] = field(default_factory=dict)
    _proved: dict[str, float] = field(default_factory=dict)
    _happened: list[RolloutEvent] = field(default_factory=list)
    _begun: int = 0  # events that were handed in, and of them those that are in the ledger
    _ended: int = 0
    _is_writing: bool = False
    _turn: threading.Condition = field(default_factory=threading.Condition)

    @property
    def id(self) -> str:
        """Return the rollout's id."""
        return self.head.rollout

    def take(self, event: RolloutEvent) -> None:
        """Take an event in, once it is in the ledger. Raises Unreachable when the lease is lost.

        A line of the ledger costs a turn. So what happens during one is written together: else two
        hundred hosts that are prepared at once would wait for each other.
        """
        with self._turn:
            self._happened.append(event)
            self._begun += 1
            number = self._begun
            self._turn.wait_for(lambda: self._ended >= number or not self._is_writing)
            if self._ended >= number:
                return  # another thread has taken it in
            self._is_writing = True
            events, self._happened = self._happened, []
        try:
            if self.ledger:
                self.ledger.note(events)
            states = [self.state]
            for one in events:
                self.state = step(self.state, one)
                states.append(self.state)
                self._show(states[-2], one)
        finally:
            with self._turn:
                self._ended += len(events)
                self._is_writing = False
                self._turn.notify_all()
        self._tell(states)

    def _show(self, before: Rollout, event: RolloutEvent) -> None:
        """Show what an event has changed. A dry run ends with its plan: no host is cut over."""
        if self.ledger is not None:
            show.changes(self.fleet.report, self.id, before, self.state, event)
        elif self.state.waves != before.waves:
            show.plan(self.fleet.report, self.id, self.state)

    def _tell(self, states: Sequence[Rollout]) -> None:
        """Tell the site's own program of each wave that is over. `states`: one after the other."""
        for before, after in pairwise(states):
            for wave in waves_over(before, after) if self.ledger is not None else ():
                words = {"hook": "after_wave", "rollout": self.id, **show.wave(after, wave)}
                hooks.tell(self.fleet, after.policy.hooks.after_wave, words)

    def job(self, host: Host, verb: Verb, plans: dict[str, str]) -> Job:
        """Return the job of a phase. `plans` gets the id of the plan and the words about it."""

        def words(plan: Plan) -> Mapping[str, str]:
            said = about(host, plan)
            plans.update(said, plan=plan.id)
            return {**said, ROLLOUT: self.id}

        brings_back = self.head.include_withdrawn or self.state.hosts[host.name].moves
        job = host_job(self.fleet, host, verb, (), include_withdrawn=brings_back)
        # The waves are by kind and number of clients, also in a dry run, which is a check.
        known = asked(job.ask, cut_over.ask_before(host), Ask(history=True))
        return replace(job, about=words, fence=self.fence, ask=known)

    def remember(self, host: Host, newest: Generation | None) -> None:
        """Remember how the relay is seen until it is cut over: as its newest generation has it."""
        if newest is not None:
            self._as_is[host.name] = as_kept(host, newest)

    def unserved(self, host: Host) -> str:
        """Return why nodes have no other relay while this one restarts; "" when they have one.

        A host that was never confirmed serves nobody yet. Another relay was proved within the last
        minute, or is proved now.
        """
        serving = self.serving(host)
        if not self.state.hosts[host.name].generation or not serving or self._is_fresh(serving):
            return ""
        proofs = self.climbed(serving)
        if any(proof.ok for proof in proofs):
            return ""
        pairs = zip(serving, proofs, strict=True)
        broken = ", ".join(f"{one.name}: {broken_rungs(proof)[0]}" for one, proof in pairs)
        return f"no other relay is proved ({broken}), so its nodes would have none meanwhile"

    def proves_any(self, hosts: Sequence[Host]) -> bool:
        """Return whether one of these was proved within the last minute, or is proved now."""
        return self._is_fresh(hosts) or any(proof.ok for proof in self.climbed(hosts))

    def _is_fresh(self, hosts: Sequence[Host]) -> bool:
        now = time.monotonic()
        return any(self._proved.get(one.name, -_FRESH_S) + _FRESH_S > now for one in hosts)

    def control(self, *but: Host) -> bool | None:
        """Return whether a relay other than these is proved now. None without another one."""
        serving = self.serving(*but)
        return any(proof.ok for proof in self.climbed(serving)) if serving else None

    def serving(self, *but: Host, among: Collection[str] | None = None) -> list[Host]:
        """Return the relays that serve, other than these: up to three, those proved last first.

        Among them are those that somebody else runs. `among`: the names of those that count.
        """
        names = {one.name for one in but} | set(self.state.names(*BUSY))
        known = {name for name, host in self.state.hosts.items() if host.generation or host.confirmed}
        found = [
            host
            for name, host in self.fleet.site.hosts.items()
            if name not in names and (name in known or not host.managed) and (among is None or name in among)
        ]
        return sorted(found, key=lambda one: -self._proved.get(one.name, 0.0))[:_CONTROLS]

    def climbed(self, hosts: Sequence[Host]) -> list[Proof]:
        """Return the proofs of these relays as they are now. They are kept, and not shown."""
        looks = [self._now(host) for host in hosts]
        wanted = [one for then, derper in looks for one in targets(self.fleet, [then], derper=derper)]
        proofs, now = climb(self.fleet, [then for then, _ in looks], wanted), time.monotonic()
        for host, proof in zip(hosts, proofs, strict=True):
            past.add(self.fleet, host.name, proof)
        self._proved |= {host.name: now for host, proof in zip(hosts, proofs, strict=True) if proof.ok}
        return proofs

    def _now(self, host: Host) -> tuple[Host, str]:
        """Return how the relay is seen now, and the derper whose mesh key it has."""
        is_new = host.name in self.state.names(HostState.CONFIRMED)
        return (host, "") if is_new else self._as_is.get(host.name, (host, ""))

    def host(self, name: str) -> Host:
        """Return the host of that name. Raises NoSuchHost."""
        [found] = self.fleet.hosts([name])
        return found
