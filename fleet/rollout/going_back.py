"""`invoke rollback --rollout`: all hosts of a rollout go back to their states from before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.generations import Generation, History
from engine.run import NOTHING, Verb
from fleet.rollout import carry_out, superseded
from fleet.rollout.lease import RolloutLease, leased
from fleet.rollout.ledger import RolloutLedger, new_head
from fleet.rollout.under_way import UnderWay
from fleet.shared.confirm import ROLLOUT
from fleet.shared.fleet import Fleet
from fleet.shared.last_rollout import replayed
from fleet.shared.step import CHANGES_FOUND
from inventory.errors import DerpfleetError
from inventory.model import Host
from inventory.rollout import RolloutPolicy


class CannotGoBack(DerpfleetError):
    """The rollout cannot be taken back as a whole; nothing was changed."""


@dataclass(frozen=True)
class ReturningHost:
    """A host on its way from the generation that the rollout has made to the one before it."""

    host: Host
    ours: Generation
    before: Generation


def take_all_back(fleet: Fleet, id: str, *, dry_run: bool) -> int:
    """Bring all hosts of that rollout back, newest first. Returns the exit code.

    All are asked before the first is changed. Raises CannotGoBack, Locked, Unreachable.
    """
    if dry_run:
        return CHANGES_FOUND if _ways(fleet, id) else 0
    with leased(fleet, wait_s=0) as lease:
        _refuse_open(lease)
        refused, ways = superseded(fleet, lease), _ways(fleet, id)
        if not ways:
            return 0
        before = {one.host.name: one.before.number for one in ways}
        head = new_head(list(before), RolloutPolicy(), refused=refused, before=before)
        head = replace(head, rollout=id)
        ledger = RolloutLedger(fleet.runs, lease, head)
        ledger.begin()
        under_way = UnderWay(fleet, head, head.begin(), ledger, lease.number)
        for one in ways:
            under_way.remember(one.host, one.before)
        return carry_out(under_way)


def _refuse_open(lease: RolloutLease) -> None:
    last = replayed(lease.lines)
    if last is not None and not last[1].ended:
        raise CannotGoBack(
            "nothing was changed: a rollout has not ended",
            why=f"{last[0].rollout} of {last[0].who} is open",
            next="invoke rollout --resume goes on with it; invoke rollout --abort ends it",
        )


def _ways(fleet: Fleet, id: str) -> list[ReturningHost]:
    """Return the ways of its hosts in the order of their confirmations, after showing them.

    A host that is as before already has none. Raises CannotGoBack with every reason.
    """
    found: dict[str, History] = {}

    def ask(host: Host) -> None:
        with fleet.session_for_reading(fleet.login(host), NOTHING) as session:
            found[host.name] = session.history()

    managed = [host for host in fleet.site.hosts.values() if host.managed]
    fleet.parallel.each(managed, ask)
    concerned = [host for host in managed if any(_is_of(id, one) for one in found[host.name].generations)]
    if not concerned:
        raise CannotGoBack(
            f"no host has a generation of the rollout {id}",
            why="it has confirmed none, it is older than the generations that hosts keep, or is none of ours",
            next="invoke history shows the generations, with the rollouts that made them",
        )
    ways = [_way(id, host, found[host.name]) for host in concerned]
    if reasons := [one for one in ways if isinstance(one, str)]:
        raise CannotGoBack(
            "nothing was changed: not every host of the rollout can go back",
            why="\n".join(reasons),
            next="invoke rollback --host NAME --to N brings a host to a generation of your choice",
        )
    return _shown(fleet, [one for one in ways if isinstance(one, ReturningHost)])


def _way(id: str, host: Host, history: History) -> ReturningHost | str | None:
    """Return the way of a host, None when it is as before already, or why there is none."""
    kept = history.generations
    last = max(place for place, one in enumerate(kept) if _is_of(id, one))
    first = min(place for place, one in enumerate(kept) if _is_of(id, one))
    before = kept[last + 1] if last + 1 < len(kept) else None
    if history.unconfirmed.plan:
        return f"{host.name} has changes of {history.unconfirmed.who} that nobody has confirmed"
    if before is None:
        return f"{host.name} has kept nothing from before: it was its first deploy, or is too long ago"
    if before.trouble:
        return f"{host.name}: {before.trouble}"
    if first and kept[0].plan == before.plan:
        return None
    if first:
        return f"{host.name} has changed since: it is at generation {kept[0]}"
    return ReturningHost(host, kept[0], before)


def _is_of(id: str, one: Generation) -> bool:
    """Return whether the rollout has made that generation: a way back to one repeats its words."""
    return one.verb == Verb.ROLLOUT and one.about.get(ROLLOUT) == id


def _shown(fleet: Fleet, ways: Sequence[ReturningHost]) -> list[ReturningHost]:
    for one in ways:
        words = f"generation {one.ours} → {one.before}"
        fleet.report.line(one.host.name, "going back", words)
    if not ways:
        fleet.report.say("Every host of that rollout is as it was before it.")
    return sorted(ways, key=lambda one: one.ours.at)
