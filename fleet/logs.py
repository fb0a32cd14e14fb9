"""`invoke logs`: the events of the last run on a host, or the relay's own log."""

from __future__ import annotations

import json
from pathlib import Path

from engine import cache
from engine.transport import run_once
from fleet.shared.fleet import Fleet
from fleet.shared.options import number, refuse
from inventory.errors import DerpfleetError
from inventory.model import Host
from roles.relay import chosen_runner


def logs(fleet: Fleet, name: str, *, relay: bool, lines: str) -> None:
    """Show the last run on a host, or with `relay` the last lines of the relay's own log."""
    if not relay:
        show_last_run(fleet, name)
        return
    control = fleet.site.control.hosts()
    refuse("runs no relay: leave --relay out to see its last run", {f"--host {name}": name in control})
    fleet.managed([name])
    show_relay_log(fleet, fleet.equipped([name])[0], lines=number(lines, "--lines", most=1_000_000))


def runs_of(fleet: Fleet, name: str) -> list[Path]:
    """Return the logs of a host's runs, oldest first."""
    return sorted((fleet.runs / name).glob("*.jsonl"))


def show_last_run(fleet: Fleet, name: str) -> None:
    """Show the events of the last run. Raises DerpfleetError if there is no run or no host."""
    control = fleet.site.control.hosts()
    if name not in control:
        fleet.managed([name])
    found = runs_of(fleet, name)
    if not found:
        makes_one = "invoke deploy" if name in control else f"invoke deploy --host {name}"
        raise DerpfleetError(f"no run of {name} is kept under {fleet.runs}", next=makes_one)
    fleet.report.say(str(found[-1]))
    with cache.access_to(found[-1]):
        lines = found[-1].read_text(errors="replace").splitlines()
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue  # the run was cut while it wrote this line, the last
        fleet.report.emit(host=name, **event)
        kind = event.pop("event")
        if kind in ("result", "diff", "error", "waiting", "done"):
            shown = ("id", "status", "ms", "what", "why", "reason", "counts")
            fleet.report.line(name, kind, "  ".join(f"{key}={event[key]}" for key in shown if event.get(key)))


def show_relay_log(fleet: Fleet, host: Host, *, lines: int) -> None:
    """Show the last lines of the relay's own log, read over SSH. Raises DerpfleetError."""
    status, output = run_once(fleet.login(host), list(chosen_runner(host).log(lines)))
    if status:
        raise DerpfleetError(
            "the relay's log cannot be read",
            host=host.name,
            why=output.strip()[-500:],
            next=f"if the relay was never deployed: invoke deploy --host {host.name}",
        )
    fleet.report.emit(event="log", host=host.name, text=output)
    fleet.report.say(output.rstrip("\n"))
