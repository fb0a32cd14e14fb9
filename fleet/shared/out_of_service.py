"""Take a relay out of service in the one order that leaves every client a relay.

First another relay has to be in the map and proved. Then this one is stopped completely, so that
nodes notice it and move. Only then its region may go. The effects of any other order were measured:
see `control.headscale.merge.plan_registration`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import roles
from control.served import Served
from engine.facts import asked
from engine.login import Unreachable
from engine.resource import Resource
from engine.run import Job, Verb
from engine.session import Session
from fleet.shared import cut_over
from fleet.shared.control_server import control_server
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.prove import any_proved, forget, targets
from fleet.shared.step import step
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.verify import prove
from roles import relay
from roles.relay import OutOfService

MOVING_S = 90  # wait at most this long for nodes to move; nodes that were watched took 5 to 8 s
STOPPING_S = 600  # wait at most this long for somebody else to stop a relay of theirs
PAUSE_S = 2.0
SETTLING_S = 20  # wait this long when it is not known where nodes are at home
BETWEEN = "the relay is stopped, its region is still in the map"
_BACK: Mapping[OutOfService, str] = {
    OutOfService.WITHDRAWN: "invoke deploy --host {}",
    OutOfService.DRAINED: "invoke drain --host {} --back",
}


class NoOtherRelay(DerpfleetError):
    """Nothing was changed: nodes would have no relay left."""


class NotInMap(DerpfleetError):
    """Nothing was changed: the relay has no region that could stay in the map."""


class StillRuns(DerpfleetError):
    """Nothing was changed: a relay that somebody else runs was not stopped."""


class StillAtHome(DerpfleetError):
    """The relay is stopped, and its region is still in the map: nodes did not move."""


@dataclass(frozen=True)
class Departure:
    """The clients of a relay that went out of service. Each is None where it is not known.

    `clients`: those that were connected when it stopped. `homes`: the nodes that had it for their
    home then. `seconds`: from the stop until each of them had another one.
    """

    clients: int | None = None
    homes: int | None = None
    seconds: float | None = None


def back_by(host: Host, state: OutOfService) -> str:
    """Return the command that brings the relay back into service."""
    return _BACK[state].format(host.name)


def take_out_of_service(
    fleet: Fleet,
    host: Host,
    verb: Verb,
    state: OutOfService,
    *,
    fence: int = 0,
    proved: Callable[[Sequence[Host], Served], bool] | None = None,
) -> Departure:
    """Stop the relay, and wait until its nodes have moved. Steps that are done already are skipped.

    `state`: the note that stays on the host. A drained relay keeps its region, so it has to have
    one. `fence`: of a rollout's lease. `proved`: whether one of these relays of the map is proved;
    default: as the site file has them. Raises NoOtherRelay, NotInMap, StillRuns, StillAtHome,
    ResourceFailed, Unreachable, Interrupted.
    """
    is_any_proved = proved or partial(any_proved, fleet)
    with control_server(fleet).withdrawal(host) as leaving:
        if leaving is None and state is OutOfService.DRAINED:
            raise _not_in_map(host)
        others = leaving.others if leaving else None
        if leaving and others is not None and not is_any_proved(others, leaving.served):
            raise _no_other(fleet, host, verb)
        if leaving and state is OutOfService.WITHDRAWN:
            leaving.refuse_removal()
        clients = stop(fleet, host, verb, state, fence=fence)
        forget(fleet, host)
        if leaving is None:
            return Departure(clients)
        on_or_back = (
            f"invoke {verb} --host {host.name}, which goes on from there; "
            f"or bring the relay back: {back_by(host, state)}"
        )
        with _interruption_explained(host, on_or_back):
            left = _await_move(fleet, host, leaving.nodes_at_home, on_or_back)
        return replace(left, clients=clients)


def _not_in_map(host: Host) -> NotInMap:
    return NotInMap(
        "nothing was changed: it has no region in the map, so no client uses it",
        host=host.name,
        why="a drained relay keeps its region, and comes back without a registration",
        next=f"invoke deploy --host {host.name} registers it; "
        f"invoke withdraw --host {host.name} stops it as it is",
    )


def _no_other(fleet: Fleet, host: Host, verb: Verb) -> NoOtherRelay:
    return NoOtherRelay(
        "nothing was changed: it is the only relay of this site that nodes have",
        host=host.name,
        why=(
            "no other relay of this site is proved and in the map"
            if len(fleet.site.hosts) > 1
            else "the site has no other host"
        ),
        next=f"deploy another host first, then {verb} this one",
    )


def stop(fleet: Fleet, host: Host, verb: Verb, state: OutOfService, *, fence: int = 0) -> int | None:
    """Stop the relay's own processes, TCP and STUN. Returns how many clients it had, if known.

    A host that cannot be reached counts as stopped when its relay does not answer either. A relay
    that somebody else runs is waited for. Raises StillRuns, ResourceFailed, Unreachable,
    Interrupted.
    """
    if not host.managed:
        _await_stop(fleet, host)
        return None

    def plan(session: Session) -> list[Resource]:
        cut_over.ask_former(host, session)
        return relay.stopped(state)

    job = Job(
        verb=verb,
        plan=plan,
        ask=asked(cut_over.ask_before(host), relay.ASK_PORTS),
        fence=fence,
        places=roles.ROLES,
        next=f"stop it on the host, then run: invoke {verb} --host {host.name}",
    )
    try:
        outcome = step(fleet, fleet.login(host), job, doing="stopping the relay")
    except Unreachable as error:
        if _answers(fleet, host):
            still = "Its relay still answers, so it is not out of service; nothing was taken out of the map."
            error.why = f"{error.why}\n{still}".strip()
            raise
        fleet.report.line(host.name, "ok", f"not reachable ({error}), and nothing of its relay answers")
        return None
    clients = cut_over.clients_before(outcome.facts)
    if clients is not None:
        words = f"stopped; {clients:,} client{'s were' if clients != 1 else ' was'} connected"
        fleet.report.line(host.name, "ok", words)
    return clients


def _await_stop(fleet: Fleet, host: Host) -> None:
    """Wait until nothing answers of a relay that somebody else has to stop. Raises StillRuns."""
    until = time.monotonic() + STOPPING_S
    if _answers(fleet, host):
        words = f"stop it now, such as by scaling it to 0; this waits for up to {STOPPING_S / 60:.0f} minutes"
        fleet.report.line(host.name, "waiting", words)
    while _answers(fleet, host):
        if time.monotonic() > until:
            raise StillRuns(
                "nothing was changed: the relay still answers",
                host=host.name,
                why="somebody else runs it (managed: false), and its region may leave the map after it only",
                next=f"stop it, then run: invoke withdraw --host {host.name}",
            )
        time.sleep(PAUSE_S)
    fleet.report.line(host.name, "ok", "nothing of its relay answers")


def _answers(fleet: Fleet, host: Host) -> bool:
    [proof] = prove(targets(fleet, [host]))
    return any(proof[rung].status == "ok" for rung in ("tcp", "stun4", "stun6"))


def _await_move(
    fleet: Fleet, host: Host, nodes_at_home: Callable[[], list[str] | None], on_or_back: str
) -> Departure:
    """Wait until no node that is online has this relay for its home. Raises StillAtHome."""
    server, started = fleet.site.control.kind, time.monotonic()
    left = nodes_at_home()
    if left is None:
        fleet.report.say(
            "It is not known which nodes have this relay as their home: "
            f"waiting {SETTLING_S} s for them to move."
        )
        time.sleep(SETTLING_S)
        return Departure()
    homes = len(left)
    while left and time.monotonic() < started + MOVING_S:
        names = ", ".join(left[:5])
        fleet.report.doing(server, f"waiting for {len(left)} nodes to find another home: {names}")
        time.sleep(1)
        now = nodes_at_home()
        left = left if now is None else now  # no answer does not mean no nodes
    fleet.report.doing(server, "")
    if left:
        raise StillAtHome(
            f"{', '.join(left)} did not find another home within {MOVING_S} s",
            host=host.name,
            why=BETWEEN,
            next=f"run `tailscale debug restun` on each of these nodes, then {on_or_back}",
        )
    took_s = time.monotonic() - started
    words = f"{homes:,} node{'s' * (homes != 1)} had it for a home; every node that is online has another one"
    fleet.report.line(server, "ok", words, seconds=took_s)
    return Departure(homes=homes, seconds=round(took_s, 1))


@contextmanager
def _interruption_explained(host: Host, on_or_back: str) -> Iterator[None]:
    """Report Ctrl-C as Interrupted, with the way to finish.

    The relay is stopped but its region is still in the map.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while nodes move", host=host.name, why=BETWEEN, next=on_or_back
        ) from None
