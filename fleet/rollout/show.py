"""Show a rollout: its plan, its hosts' states, its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.report import Report
from engine.rollout.machine import exit_code
from engine.rollout.progress import wave_progress
from engine.rollout.state import HostState, Rollout, RolloutEvent

NAME = "rollout"  # in the column of the hosts' names

# The words for people; the agent's own events show the other states.
_WORDS: Mapping[HostState, str] = {
    HostState.CUTTING: "cut over",
    HostState.LOST: "lost",
    HostState.GOING_BACK: "taking back",
    HostState.UNDONE: "as before",
    HostState.STUCK: "STUCK",
}
_GROUPS: Mapping[str, tuple[HostState, ...]] = {
    "confirmed": (HostState.CONFIRMED,),
    "undone": (HostState.UNDONE,),
    "stuck": (HostState.STUCK,),
    "waiting": (HostState.CHOSEN, HostState.WAITING, HostState.CUTTING, HostState.LOST, HostState.GOING_BACK),
    "left_alone": (HostState.IDLE,),
    "skipped": (HostState.SKIPPED,),
    "unprepared": (HostState.UNPREPARED,),
}


def changes(report: Report, id: str, before: Rollout, after: Rollout, event: RolloutEvent) -> None:
    """Show what an event has changed: first its own host, then those that it leads to."""
    if after.waves != before.waves:
        plan(report, id, after)
    _waves(report, id, before, after)
    for name in sorted(after.hosts, key=lambda name: name != event.host):
        was, host = before.hosts[name].state, after.hosts[name]
        if host.state is not was:
            why = event.why if event.host == name else ""
            report.emit(
                event="host_state", rollout=id, host=name, wave=host.wave, was=was, state=host.state, why=why
            )
            if host.state in _WORDS:
                place = f"wave {host.wave} of {after.waves}" if host.wave else ""
                report.line(name, _WORDS[host.state], why or place)


def _waves(report: Report, id: str, before: Rollout, after: Rollout) -> None:
    """Emit how far each wave is, if that has changed."""
    for number in range(1, after.waves + 1):
        if wave_progress(before, number) is not wave_progress(after, number):
            report.emit(event="wave", rollout=id, **wave(after, number))


def wave(rollout: Rollout, number: int) -> dict[str, Any]:
    """Return how far a wave is, which of its hosts are confirmed and failed, and its clients."""
    hosts = {name: host for name, host in rollout.hosts.items() if host.wave == number}
    return {
        "number": number,
        "state": wave_progress(rollout, number),
        "confirmed": [name for name, host in hosts.items() if host.state is HostState.CONFIRMED],
        "failed": [name for name, host in hosts.items() if host.failed],
        "cut": sum(host.cut for host in hosts.values()),
        "longest_gap_ms": round(1000 * max((host.gap_s for host in hosts.values()), default=0.0)),
    }


def plan(report: Report, id: str, rollout: Rollout) -> None:
    """Show the waves, and how the rollout goes on."""
    policy = rollout.policy
    waves = [
        [name for name, host in rollout.hosts.items() if host.wave == number]
        for number in range(1, rollout.waves + 1)
    ]
    for number, names in enumerate(waves, start=1):
        report.line(NAME, f"wave {number}", ", ".join(names))
    at_once = "one at a time" if policy.at_once == 1 else f"{policy.at_once} at a time"
    words = f"budget {policy.budget}, on failure {policy.on_failure}, soak {policy.soak_s} s, {at_once}"
    report.line(NAME, "plan", words)
    keys = policy.model_dump(exclude={"waves", "canary", "hooks"})
    report.emit(event="rollout", id=id, waves=waves, **keys)


def grouped(rollout: Rollout) -> dict[str, list[str]]:
    """Return the hosts by the words for their ends."""
    return {word: rollout.names(*states) for word, states in _GROUPS.items()}


def end(report: Report, id: str, rollout: Rollout) -> int:
    """Show how a rollout ends, or why it is paused, and the next step. Returns the exit code."""
    code, groups = exit_code(rollout), grouped(rollout)
    state = "paused" if rollout.paused else "ended"
    report.emit(event="rollout_ended", id=id, state=state, why=rollout.paused, exit=code, **groups)
    cut = sum(host.cut for host in rollout.hosts.values())
    gap_s = max(host.gap_s for host in rollout.hosts.values())
    clients = f" · clients cut: {cut:,}, longest {gap_s:.1f} s" if cut else ""
    counted = [f"{len(names)} {word.replace('_', ' ')}" for word, names in groups.items() if names]
    report.line(NAME, state, f"{', '.join(counted)}{clients} · exit {code}")
    if rollout.paused:
        report.line(NAME, "why", rollout.paused)
        report.line(
            NAME, "next", "invoke rollout --resume goes on from there; invoke rollout --abort ends it"
        )
    for name in groups["stuck"]:
        words = (
            f"look at it: invoke logs --host {name}; take it out of service: invoke withdraw --host {name}"
        )
        report.line(name, "next", words)
    if rollout.goes_back:
        report.say("The site file is as it was: the next deploy or rollout brings the hosts to it again.")
    elif groups["undone"]:
        names = ", ".join(groups["undone"])
        report.line(NAME, "next", f"fix {names}, then: invoke rollout; the same plan once more: --again")
    if groups["confirmed"] and not rollout.goes_back:
        report.line(NAME, "next", f"invoke rollback --rollout {id} would take all of it back")
    return code
