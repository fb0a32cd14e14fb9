"""`invoke withdraw`: take a relay out of service in the one order that leaves every client a relay.

First another relay has to be in the map and proved. Then this one is stopped completely, so that
nodes notice it and move. Only then its region goes. The effects of any other order were measured:
see `control.headscale.merge.plan_registration`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import roles
from control.served import Served
from engine.login import Unreachable
from engine.run import Job, Verb
from fleet.shared.control_server import control_server
from fleet.shared.errors import Interrupted
from fleet.shared.fleet import Fleet
from fleet.shared.prove import any_proved, forget, targets
from fleet.shared.step import step
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.verify import prove
from roles import relay

MOVING_S = 90  # wait at most this long for nodes to move; nodes that were watched took 5 to 8 s
STOPPING_S = 600  # wait at most this long for somebody else to stop a relay of theirs
PAUSE_S = 2.0
SETTLING_S = 20  # wait this long when it is not known where nodes are at home
BETWEEN = "the relay is stopped, its region is still in the map"


class NoOtherRelay(DerpfleetError):
    """Nothing was changed: nodes would have no relay left."""


class StillRuns(DerpfleetError):
    """Nothing was changed: a relay that somebody else runs was not stopped."""


class StillAtHome(DerpfleetError):
    """The relay is stopped, and its region is still in the map: nodes did not move."""


def withdraw(fleet: Fleet, host: Host) -> int:
    """Stop the relay and take its regions out of the map. Steps that are done already are skipped.

    Returns the exit code. Raises NoOtherRelay, StillRuns, StillAtHome, ResourceFailed, Unreachable,
    Interrupted.
    """
    server = control_server(fleet)
    with server.withdrawal(host) as leaving:
        if leaving and leaving.others is not None:
            _need_another(fleet, host, leaving.others, leaving.served)
        if host.managed:
            _stop(fleet, host)
        else:
            _await_stop(fleet, host)
        if leaving:
            with _interruption_explained(host):
                _await_move(fleet, host, leaving.nodes_at_home)
    server.take_out(host)
    forget(fleet, host)
    fleet.report.emit(event="withdrawn", host=host.name)
    fleet.report.line(host.name, "ok", f"withdrawn; invoke deploy --host {host.name} brings it back")
    return 0


def _need_another(fleet: Fleet, host: Host, others: Sequence[Host], served: Served) -> None:
    """Raise NoOtherRelay unless one of `others` is proved. Their regions are in the map.

    `served`: the map to prove them against, where it is known.
    """
    if any_proved(fleet, others, served=served):
        return
    raise NoOtherRelay(
        "nothing was changed: it is the only relay of this site that nodes have",
        host=host.name,
        why=(
            "no other relay of this site is proved and in the map"
            if len(fleet.site.hosts) > 1
            else "the site has no other host"
        ),
        next="deploy another host first, then withdraw this one",
    )


def _stop(fleet: Fleet, host: Host) -> None:
    """Stop the relay's own processes, TCP and STUN.

    A host that cannot be reached counts as stopped when its relay does not answer either.
    Raises ResourceFailed, Unreachable, Interrupted.
    """
    try:
        step(fleet, fleet.login(host), _stopping(host), doing="stopping the relay")
    except Unreachable as error:
        if _answers(fleet, host):
            still = "Its relay still answers, so it is not out of service; nothing was taken out of the map."
            error.why = f"{error.why}\n{still}".strip()
            raise
        fleet.report.line(host.name, "ok", f"not reachable ({error}), and nothing of its relay answers")


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


def _stopping(host: Host) -> Job:
    """Return the job: no process of the relay runs, in either flavour."""
    return Job(
        verb=Verb.WITHDRAW,
        plan=lambda _: relay.stopped(),
        places=roles.ROLES,
        next=f"stop it on the host, then run: invoke withdraw --host {host.name}",
    )


def _answers(fleet: Fleet, host: Host) -> bool:
    [proof] = prove(targets(fleet, [host]))
    return any(proof[rung].status == "ok" for rung in ("tcp", "stun4", "stun6"))


def _await_move(fleet: Fleet, host: Host, nodes_at_home: Callable[[], list[str] | None]) -> None:
    """Wait until no node that is online has this relay for its home. Raises StillAtHome."""
    server, started = fleet.site.control.kind, time.monotonic()
    left = nodes_at_home()
    if left is None:
        fleet.report.say(
            "It is not known which nodes have this relay as their home: "
            f"waiting {SETTLING_S} s for them to move."
        )
        time.sleep(SETTLING_S)
        return
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
            next=f"run `tailscale debug restun` on each of these nodes, then {_on_or_back(host)}",
        )
    took_s = time.monotonic() - started
    fleet.report.line(server, "ok", "every node that is online has another home", seconds=took_s)


def _on_or_back(host: Host) -> str:
    """Return the two commands for a relay that is stopped and still in the map."""
    return (
        f"invoke withdraw --host {host.name}, which goes on from there; "
        f"or bring the relay back: invoke deploy --host {host.name}"
    )


@contextmanager
def _interruption_explained(host: Host) -> Iterator[None]:
    """Report Ctrl-C as Interrupted, with the way to finish.

    The relay is stopped but its region is still in the map.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while nodes move", host=host.name, why=BETWEEN, next=_on_or_back(host)
        ) from None
