"""The processor time that a check costs its host, and the processes that it starts, by part.

A part is what it costs more than the part before. The host's control group counts all of its
processes: sshd, the agent and its programs, systemd, and nginx and the relay that they ask.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import lab
from bench.deploy.tools import Target
from engine.boot import ANY_PYTHON, agent_payload, boot_command
from engine.report import Report
from engine.run import Verb
from fleet.shared.fleet import Fleet
from fleet.shared.host_job import host_job
from fleet.shared.step import run
from inventory.model import Host, Site
from lab.cgroup import own_groups

_AFTER_S = 0.3  # for processes to end


def cost(
    stage: lab.Lab, target: Target, site: Site, name: str, *, runs: int
) -> dict[str, tuple[float, int]]:
    """Return {part: (ms, processes)} of the host `name`, the least of so many runs."""
    boot = boot_command(python=ANY_PYTHON, sudo=False, prompt="", ask_password=False)
    with Report(json_lines=True) as report:
        fleet, host = Fleet(site, report), site.hosts[name]
        steps: dict[str, Callable[[], object]] = {
            "nothing": lambda: None,
            "login": partial(_ssh, target, "true"),
            "Python and its modules": partial(_ssh, target, boot, b"0\n"),
            "the agent's own source": partial(_ssh, target, boot, agent_payload()),
            "facts": partial(_facts, fleet, host),
            "check": partial(_check, fleet, host),
        }
        spent = {part: _least(stage, name, step, runs) for part, step in steps.items()}
    parts = list(spent)
    return {
        part: (spent[part][0] - spent[before][0], spent[part][1] - spent[before][1])
        for before, part in pairwise(parts)
    }


def _ssh(target: Target, command: str, given: bytes = b"") -> None:
    subprocess.run([*target.ssh(), command], input=given, capture_output=True, check=False)


def _facts(fleet: Fleet, host: Host) -> None:
    ask = host_job(fleet, host, Verb.CHECK, (), include_withdrawn=True).ask
    fleet.session_for_reading(fleet.login(host), ask).close()


def _check(fleet: Fleet, host: Host) -> None:
    def one(host: Host) -> None:
        outcome = run(fleet, fleet.login(host), host_job(fleet, host, Verb.CHECK, (), include_withdrawn=True))
        if outcome.counts["changed"]:
            raise RuntimeError("the host is not as it is wanted")

    fleet.parallel.each([host], one)


def _least(stage: lab.Lab, name: str, step: Callable[[], object], runs: int) -> tuple[float, int]:
    found = []
    for _ in range(runs):
        ms, pid = _cpu_ms(stage, name), _last_pid(stage, name)
        step()
        time.sleep(_AFTER_S)
        found.append((_cpu_ms(stage, name) - ms, _last_pid(stage, name) - pid))
    return min(ms for ms, _ in found), min(pids for _, pids in found)


def _cpu_ms(stage: lab.Lab, name: str) -> float:
    """Return the processor time of all processes of the host so far."""
    groups = Path(f"/proc/{stage.hosts[name].init}/cgroup").read_text()
    for group in own_groups(Path("/proc/self/mountinfo").read_text(), groups):
        whole = group.parent if group.name == "init.scope" else group
        v1, v2 = whole / "cpuacct.usage", whole / "cpu.stat"
        if v1.exists():
            return int(v1.read_text()) / 1e6
        if v2.exists() and (usage := re.search(r"^usage_usec (\d+)$", v2.read_text(), re.M)):
            return int(usage[1]) / 1e3
    raise RuntimeError(f"no control group counts the time of {name}")


def _last_pid(stage: lab.Lab, name: str) -> int:
    """Return the number of the host's newest process or thread."""
    return int(stage.run_in(name, ["cat", "/proc/loadavg"]).stdout.split()[-1])
