"""The last rollout of a site, from the ledger that lies with its lease."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.facts import Ask, parsed
from engine.login import Login
from engine.rollout.machine import begin, begin_back, step
from engine.rollout.progress import RolloutProgress, progress
from engine.rollout.state import HostState, Rollout, RolloutEvent
from fleet.shared.fleet import Fleet
from inventory.errors import DerpfleetError
from inventory.rollout import RolloutPolicy
from roles import paths

_LEDGER = f"{paths.AGENT}/rollout.jsonl"


class LedgerUnreadable(DerpfleetError):
    """The ledger of the last rollout cannot be read."""


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """The first line of a ledger: who began the rollout, on which hosts, and how.

    `since`: seconds since the epoch. `refused`: the plans that earlier rollouts could not prove, by
    the host's name. `before`: the generations that the hosts of a rollout go back to that is taken
    back as a whole, in the order of their confirmations.
    """

    rollout: str
    who: str
    since: float
    hosts: tuple[str, ...]
    policy: RolloutPolicy
    pauses: bool = False
    skip_unreachable: bool = False
    include_withdrawn: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)

    def begin(self) -> Rollout:
        """Return the rollout before its first event."""
        if self.before:
            return begin_back(self.before, self.policy)
        return begin(self.hosts, self.policy, pauses=self.pauses)


def replayed(lines: Sequence[Any]) -> tuple[LedgerHead, Rollout] | None:
    """Return the rollout that these lines tell of; None without any. Raises LedgerUnreadable."""
    if not lines:
        return None
    try:
        head: LedgerHead = parsed(LedgerHead, lines[0])
        if not head.hosts:
            raise ValueError("it has no hosts")
        rollout = head.begin()
        for line in lines[1:]:
            rollout = step(rollout, parsed(RolloutEvent, line))
    except (ValueError, KeyError) as error:
        raise LedgerUnreadable(
            "the ledger of the last rollout cannot be read",
            why=f"{type(error).__name__}: {error}",
            next="use the checkout that has written it; or invoke rollout begins a new one in its place",
        ) from None
    return head, rollout


def lease_login(fleet: Fleet) -> Login:
    """Return how to reach the host of the lease: the control server's, else the first one."""
    ours = [fleet.login(host) for host in fleet.site.hosts.values() if host.managed]
    return [*fleet.control_logins(), *ours][0]


def how_far(state: Rollout) -> str:
    """Return the present wave and the number of hosts in each state, in words."""
    counts = {one: len(state.names(one)) for one in HostState}
    words = ", ".join(f"{count} {one}" for one, count in counts.items() if count)
    return f"wave {state.wave} of {state.waves}, {words}" if state.waves else words


def last_known(fleet: Fleet) -> tuple[Rollout, float] | None:
    """Return the site's last rollout, and when its last event was, in seconds since the epoch.

    None without one, and where it cannot be asked for or read.
    """
    try:
        with fleet.session_for_reading(lease_login(fleet), Ask(files=(_LEDGER,))) as session:
            file = session.facts.files.get(_LEDGER)
        lines = [json.loads(line) for line in ((file and file.content) or "").splitlines()]
        found = replayed(lines)
        return (found[1], _moment_of(lines[-1])) if found else None
    except (DerpfleetError, ValueError, LookupError, TypeError, RecursionError):
        return None


def last_progress(fleet: Fleet) -> RolloutProgress | None:
    """Return how far the site's last rollout is. None without one, and where it is not known."""
    found = last_known(fleet)
    return progress(found[0], silent_s=time.time() - found[1]) if found else None


def _moment_of(line: Mapping[str, Any]) -> float:
    return float(line.get("at", line.get("since", 0.0)))
