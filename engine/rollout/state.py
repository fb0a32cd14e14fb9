"""A rollout as data: the states of its hosts, its events and its actions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from inventory.rollout import RolloutPolicy


class HostState(StrEnum):
    """The state of a host in a rollout."""

    CHOSEN = "chosen"
    SKIPPED = "skipped"
    UNPREPARED = "unprepared"
    IDLE = "idle"
    WAITING = "waiting"
    CUTTING = "cutting"
    LOST = "lost"
    CONFIRMED = "confirmed"
    GOING_BACK = "going back"
    UNDONE = "undone"
    STUCK = "stuck"


BUSY = (HostState.CUTTING, HostState.LOST, HostState.GOING_BACK)
"""The states in which a host's relay may be down."""
ABSENT = (HostState.CHOSEN, HostState.SKIPPED, HostState.UNPREPARED, HostState.STUCK)
"""The states in which a host counts for no relay that clients have."""


class EventKind(StrEnum):
    """The events of a rollout."""

    PREPARED = "prepared"
    SKIPPED = "skipped"
    UNPREPARED = "unprepared"
    CONFIRMED = "confirmed"
    STILL_BROKEN = "still_broken"
    UNDONE = "undone"
    AS_BEFORE = "as_before"
    OVERTAKEN = "overtaken"
    STUCK = "stuck"
    INCONCLUSIVE = "inconclusive"
    LOST = "lost"
    SOAKED = "soaked"
    REGISTERED = "registered"
    DEFERRED = "deferred"
    ALLOWED = "allowed"
    PAUSED = "paused"
    RESUMED = "resumed"
    ABORTED = "aborted"


class ActionKind(StrEnum):
    """The actions that a rollout needs."""

    PREPARE = "prepare"
    CUT_OVER = "cut over"
    ASK = "ask"
    TAKE_BACK = "take back"
    SOAK = "soak"
    REGISTER = "register"
    COMPARE = "compare"
    ALLOW = "allow"


@dataclass(frozen=True, kw_only=True)
class RolloutEvent:
    """An event of a host, or of the whole rollout.

    `why`, `code`: the words and the exit code of an error. The next fields are of a prepared host:
    its plan and how many changes it needs, the generation that it can go back to (0 without one),
    its clients, the kind of host that it is, the host nearest to it ("" when that is not known),
    and whether it moves: clients find it in another place after its cut-over. `hosts`: those that
    did not hold while they were watched, those that are registered, or those that the map takes
    only together with others. `cut`: the clients that a restart has cut; `gap_s`: the seconds until
    the last of them that came back was seen.
    """

    kind: EventKind
    host: str = ""
    why: str = ""
    code: int = 0
    plan: str = ""
    changes: int = 0
    generation: int = 0
    clients: int = 0
    like: str = ""
    near: str = ""
    moves: bool = False
    hosts: tuple[str, ...] = ()
    cut: int = 0
    gap_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RolloutHost:
    """A host in a rollout.

    `wave`: its number, 0 without one. `confirmed`: its place in the order of confirmations.
    `failed`: counts against the budget. `moves`: it is cut over alone, and is registered before
    the next host is begun. `overtaken`: another run has changed it since it was prepared first.
    `registered`: the map has its region, also as it was for a host that is left alone. `deferred`:
    its region enters the map together with those of a later wave.
    `cut`, `gap_s`: the sum and the longest of its events. `if_as_before`: the state that it gets
    when it was lost and is found as it was before. `is_returning`: it was lost on its way back.
    """

    state: HostState = HostState.CHOSEN
    wave: int = 0
    plan: str = ""
    generation: int = 0
    clients: int = 0
    like: str = ""
    near: str = ""
    moves: bool = False
    overtaken: bool = False
    confirmed: int = 0
    failed: bool = False
    soaked: bool = False
    registered: bool = False
    deferred: bool = False
    cut: int = 0
    gap_s: float = 0.0
    if_as_before: HostState = HostState.UNDONE
    is_returning: bool = False

    @property
    def serves(self) -> bool:
        """Whether clients have this relay, apart from its restart: it was confirmed once."""
        return bool(self.generation or self.confirmed) and self.state not in ABSENT


@dataclass(frozen=True, kw_only=True)
class RolloutAction:
    """An action, on these hosts."""

    kind: ActionKind
    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A rollout: its hosts in the order of the site file, and how far it is.

    `waves`: how many there are; `wave`: the present one, from 1. `allowed`: the last one that the
    site's own program has allowed. `pauses`: pause after the first wave. `goes_back`: all its hosts
    go back to their state from before it. `paused`: why it waits for a person. `aborted`: nothing
    more is begun. `ended`: nothing is left to do. `refused`: the exit code of a rollout that could
    not begin.
    """

    policy: RolloutPolicy
    hosts: Mapping[str, RolloutHost]
    wave: int = 1
    waves: int = 0
    allowed: int = 0
    pauses: bool = False
    goes_back: bool = False
    paused: str = ""
    aborted: bool = False
    ended: bool = False
    refused: int = 0

    def names(self, *states: HostState) -> list[str]:
        """Return the hosts in these states."""
        return [name for name, host in self.hosts.items() if host.state in states]

    @property
    def failures(self) -> int:
        """Return how many hosts count against the budget."""
        return sum(host.failed for host in self.hosts.values())

    @property
    def is_winding_up(self) -> bool:
        """Whether no host may be begun: it was aborted, goes back, or too many have failed."""
        return self.aborted or self.goes_back or self.failures > self.policy.budget

    def changed(self, name: str, state: HostState, **more: object) -> Rollout:
        """Return the rollout with that host in that state."""
        host = replace(self.hosts[name], state=state, **more)  # type: ignore[arg-type]  # by name
        return replace(self, hosts={**self.hosts, name: host})
