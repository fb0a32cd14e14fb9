"""`invoke withdraw`: a relay out of service, in the one order that leaves every client a relay.

Another relay is in the map and proved; this one is stopped whole, so that nodes see it and move; only then its region goes. What
happens in any other order was measured (`roles.headscale_map.plan_registration`).
"""

from __future__ import annotations

import time

from engine.facts import Ask
from engine.session import Session
from engine.transport import Unreachable
from fleet.context import HEADSCALE, Fleet
from fleet.deploy import ResourceFailed
from fleet.prove import forget, prove_hosts, targets
from fleet.register import regions_of, take_out
from fleet.served import NO_HEADSCALE, Served, ask_map, headscale_session, nodes_at_home, read_map
from inventory.errors import DerpfleetError
from inventory.model import Host
from probe.verify import prove
from roles import headscale_look, relay

MOVING_S = 90  # nodes that were watched took 5 to 8 s
SETTLING_S = 20  # how long nodes are given when nobody tells where they are


class NoOtherRelay(DerpfleetError):
    """Nothing was changed: nodes would have no relay left."""


class StillAtHome(DerpfleetError):
    """The relay is stopped, its region is still in the map: nodes did not move."""


def withdraw(fleet: Fleet, host: Host) -> int:
    """Stops the relay and takes its regions out of the map. Does what is left to do when some of it is done already.

    Returns the exit code. Raises NoOtherRelay, StillAtHome, RegistrationFailed, ResourceFailed, Unreachable.
    """
    if fleet.site.headscale is None:
        _need_another(fleet, host, NO_HEADSCALE)
        _stop(fleet, host)
        _settle(fleet)
        fleet.report.say(f"Take region {host.region.id} ({host.region.code}) out of the map of your control server now.")
        return _ended(fleet, host)
    with headscale_session(fleet) as session:
        seen = headscale_look.look(fleet.site, session.facts)
        there = [id for region in regions_of(fleet, host, session.facts) if (id := region.region.id) in seen.regions]
        if there:
            _need_another(fleet, host, read_map(session.ask(ask_map(fleet.site, session.facts))))
        _stop(fleet, host)
        if there:
            _await_move(fleet, host, session, there)
    take_out(fleet, host)
    return _ended(fleet, host)


def _need_another(fleet: Fleet, host: Host, served: Served) -> None:
    """Raises NoOtherRelay unless another relay of the site proves, and is in the map as it is."""
    if isinstance(served, str) and served != NO_HEADSCALE:
        raise NoOtherRelay("nothing was changed", host=host.name, why=f"which relays the map has is not known: {served}")
    others = [other for other in fleet.site.hosts.values() if other.name != host.name]
    proofs = prove_hosts(fleet, others, served=lambda _: served)
    if not any(proof.ok for proof in proofs.values()):
        raise NoOtherRelay(
            "nothing was changed: it is the only relay that nodes have",
            host=host.name,
            why="no other relay of this site is proved and in the map" if others else "the site has no other host",
            next="deploy another host first",
        )


def _stop(fleet: Fleet, host: Host) -> None:
    """The relay's own processes, TCP and STUN. A host that is gone counts as stopped when nothing of it answers outside."""
    fleet.report.doing(host.name, "stopping the relay")
    started = time.monotonic()
    try:
        outcome = fleet.alone(
            lambda: fleet.converge(
                fleet.login(host),
                lambda _: relay.stopped(),
                ask=Ask(),
            )
        )
    except Unreachable as error:
        if _answers(fleet, host):
            raise
        fleet.report.line(host.name, "ok", f"not reachable ({error}), and nothing of its relay answers")
        return
    finally:
        fleet.report.doing(host.name, "")
    fleet.report.counts(host.name, outcome.counts, checking=False, seconds=time.monotonic() - started)
    for failure in outcome.failures:
        raise ResourceFailed(failure.what, host=host.name, where=f"roles/relay.py -> {failure.id}", why=failure.why)


def _answers(fleet: Fleet, host: Host) -> bool:
    [proof] = prove(targets(fleet, [host]))
    return any(proof[rung].status == "ok" for rung in ("tcp", "stun4", "stun6"))


def _await_move(fleet: Fleet, host: Host, session: Session, regions: list[int]) -> None:
    """Until no node that is online has one of these regions for its home. Raises StillAtHome."""
    started = time.monotonic()
    while (left := nodes_at_home(session, fleet.site, regions)) and time.monotonic() < started + MOVING_S:
        fleet.report.doing(HEADSCALE, f"{len(left)} nodes have yet to find another home: {', '.join(left[:5])}")
        time.sleep(1)
    fleet.report.doing(HEADSCALE, "")
    if left is None:
        _settle(fleet)
    elif left:
        raise StillAtHome(
            f"{', '.join(left)} did not find another home within {MOVING_S} s",
            host=host.name,
            why="the relay is stopped, its region is still in the map",
            next=f"`tailscale debug restun` on that node, then invoke withdraw --host {host.name}; or take it back: "
            f"invoke deploy --host {host.name}",
        )
    else:
        fleet.report.line(HEADSCALE, "ok", "every node that is online has another home", seconds=time.monotonic() - started)


def _settle(fleet: Fleet) -> None:
    fleet.report.say(f"Nobody tells where nodes are at home: waiting {SETTLING_S} s for them to move.")
    time.sleep(SETTLING_S)


def _ended(fleet: Fleet, host: Host) -> int:
    forget(fleet, host)
    fleet.report.emit(event="withdrawn", host=host.name)
    fleet.report.line(host.name, "ok", f"withdrawn; invoke deploy --host {host.name} brings it back")
    return 0
