"""Watch the confirmed hosts of a wave, and register them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from control.contract import TooFewRelays
from engine.rollout.state import EventKind, RolloutEvent
from fleet.rollout import hooks
from fleet.rollout.show import NAME
from fleet.rollout.under_way import UnderWay
from fleet.shared.control_server import control_server
from fleet.shared.prove import compare_map, prove_hosts
from fleet.shared.register import put_into_map
from fleet.shared.verdict import TRIES, Conclusion, Try, broken_rungs, judged
from inventory.errors import DerpfleetError
from inventory.model import Host

_PAUSE_S = 5.0


def soak(under_way: UnderWay, hosts: Sequence[Host]) -> RolloutEvent:
    """Prove these hosts again and again, as long as the policy says. Return the event of that.

    A host does not hold when three proofs in a row have failed, and another relay was proved.
    """
    report, seconds = under_way.fleet.report, under_way.state.policy.soak_s
    tries: dict[str, list[Try]] = {host.name: [] for host in hosts}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        report.doing(NAME, f"watching {', '.join(tries)}")
        broken = [broken_rungs(proof) for proof in under_way.climbed(hosts)]
        control = under_way.control(*hosts) if any(broken) else None
        for found, rungs in zip(tries.values(), broken, strict=True):
            found.append(Try(rungs, control))
        ends = {name: judged(found[-TRIES:]) for name, found in tries.items()}
        if failed := tuple(name for name, end in ends.items() if end is Conclusion.FAILED):
            report.line(NAME, "failed", f"no longer proved: {', '.join(failed)}")
            return RolloutEvent(kind=EventKind.SOAKED, hosts=failed)
        time.sleep(min(_PAUSE_S, max(0.0, until - time.monotonic())))
    report.doing(NAME, "")
    if unsure := [name for name, found in tries.items() if found[-1].broken]:
        why = f"not proved at the end of the soak: {', '.join(unsure)}"
        return RolloutEvent(kind=EventKind.PAUSED, why=why)
    made = [one for found in tries.values() for one in found]
    holding = sum(not one.broken for one in made)
    report.line(NAME, "watched", f"{holding} of {len(made)} proofs hold in {seconds} s")
    return RolloutEvent(kind=EventKind.SOAKED)


def allow_wave(under_way: UnderWay, hosts: Sequence[Host]) -> RolloutEvent:
    """Ask the site's own program before a wave. Return the event: it is allowed, or paused."""
    state = under_way.state
    said = {"hook": "before_wave", "rollout": under_way.id, "number": state.wave, "waves": state.waves}
    names = [host.name for host in hosts]
    trouble = hooks.call(under_way.fleet, state.policy.hooks.before_wave, {**said, "hosts": names})
    if trouble:
        return RolloutEvent(kind=EventKind.PAUSED, why=f"before wave {state.wave}, {trouble}")
    return RolloutEvent(kind=EventKind.ALLOWED)


def register_wave(under_way: UnderWay, hosts: Sequence[Host]) -> RolloutEvent:
    """Put the regions of these hosts into the map, in one transaction. Return the event of that."""
    fleet, server = under_way.fleet, control_server(under_way.fleet)
    unknown = [host for host in hosts if host.name not in under_way.proofs]
    if unknown:  # another controller has confirmed them
        served = server.unasked("compared when it is registered")
        under_way.proofs |= prove_hosts(fleet, unknown, served=served)
    names = tuple(host.name for host in hosts)
    if broken := [name for name in names if not under_way.proofs[name].ok]:
        return RolloutEvent(kind=EventKind.PAUSED, why=f"no longer proved: {', '.join(broken)}")
    return _put(under_way, hosts)


def compare_regions(under_way: UnderWay, hosts: Sequence[Host]) -> RolloutEvent:
    """Compare the map with the regions of hosts that are left alone. Return the event of that.

    Where it differs, as by a new name of a region, those that are proved are registered.
    """
    fleet, server = under_way.fleet, control_server(under_way.fleet)
    event = RolloutEvent(kind=EventKind.REGISTERED, hosts=tuple(host.name for host in hosts))
    try:
        differs = server.check(hosts)
    except DerpfleetError as error:
        fleet.report.failure(error)
        return RolloutEvent(kind=EventKind.PAUSED, why=f"not compared with the map: {error.what}")
    if not differs:
        return event
    proofs = prove_hosts(fleet, hosts, served=server.unasked("compared when it is registered"))
    under_way.proofs |= proofs
    proved = [host for host in hosts if proofs[host.name].ok]
    for host in hosts:
        if host not in proved:
            words = f"its region stays as it is; once it is proved: invoke deploy --host {host.name}"
            fleet.report.line(host.name, "not proved", words)
    put = _put(under_way, proved) if proved else event
    return event if put.kind is EventKind.REGISTERED else put


def _put(under_way: UnderWay, hosts: Sequence[Host]) -> RolloutEvent:
    """Put the regions of these proved hosts into the map. Return the event of that."""
    fleet, server = under_way.fleet, control_server(under_way.fleet)
    names = tuple(host.name for host in hosts)
    try:
        there = put_into_map(fleet, server, hosts)
        if there is None or compare_map(fleet, hosts, under_way.proofs, there):
            why = _left_to_a_person(under_way, names) if there is None else ""
            return RolloutEvent(kind=EventKind.REGISTERED, hosts=names, why=why)
        why = "the map that clients get does not agree with the relays"
    except TooFewRelays as error:
        words = f"{', '.join(names)} cannot be in the map alone"
        fleet.report.line(NAME, "later", f"{words}, but with the next relay that is proved")
        return RolloutEvent(kind=EventKind.DEFERRED, hosts=names, why=f"{words}: {error.why}")
    except DerpfleetError as error:
        fleet.report.failure(error)
        why = f"not registered: {error.what}"
    return RolloutEvent(kind=EventKind.PAUSED, why=f"{', '.join(names)}: {why}")


def _left_to_a_person(under_way: UnderWay, names: Sequence[str]) -> str:
    """Return what a person has to put into the map first; "" where clients have these regions."""
    known = under_way.state.hosts
    new = [name for name in names if known[name].moves or not known[name].generation]
    return f"clients get these regions once you have put them into their map: {', '.join(new)}" if new else ""
