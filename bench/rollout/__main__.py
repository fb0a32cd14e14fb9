"""`python -m bench.rollout`: what a rollout costs at a distance.

It raises a lab with one relay host and deploys it. `prepare` runs two hundred sshd there, each with
a lock and a state folder of its own: two hundred hosts to which a rollout has nothing to do. They
share the machine's processor with the controller, so the wall time is an upper bound; the
controller's processor time and memory are its own. `cut-over` rolls out releases to the host, and
`peers` lets ansible and mitogen find nothing to do there. Prints figures for bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import inventory
import lab
from bench.deploy.many_hosts import ManyHosts, many_hosts, ports_of
from bench.deploy.tools import Target
from bench.rollout.serial import cut_overs, peers_s
from fleet.shared.records import folder_of
from inventory.checkout import CHECKOUT
from lab.delay import parse_seconds
from tests.e2e.desk import Desk
from tests.e2e.steps import settled, small

HOST = "hk1"


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollout", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--hosts", type=int, default=200)
    parser.add_argument("--rtt", type=parse_seconds, default=0.1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # the lab, once it is up
    given = parser.parse_args()
    if given.inside:
        measure(lab.load(given.inside), given)
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-rollout-") as folder:
        stage = lab.up(
            Path(folder) / "lab",
            only=[HOST],
            progress=lambda line: print(f"{time.monotonic() - began:6.1f} s  {line}", file=sys.stderr),
        )
        try:
            desk = Desk(stage)
            small(desk, HOST, settings(given.hosts))
            settled(desk)
            again = [sys.executable, "-m", "bench.rollout", *sys.argv[1:], "--inside", str(stage.root)]
            code = subprocess.run([*stage.enter, *again], check=False).returncode
        finally:
            shutil.rmtree(folder_of(inventory.load(stage.site_file)), ignore_errors=True)
            lab.down(stage.root)
    sys.exit(code)


def settings(number: int) -> dict[str, Any]:
    """Return those of the relay host. Its firewall lets the ports of the hosts through."""
    allow = [f"{port}/tcp" for port in ports_of(number)]
    return {"certificate": {"source": "self-signed"}, "relay": {"open": True}, "firewall": {"allow": allow}}


def measure(stage: Any, given: argparse.Namespace) -> None:
    """Measure the parts that were asked for, inside the lab's network."""
    print(f"Round trip {given.rtt * 1000:.0f} ms, load average {os.getloadavg()[2]:.1f}.")
    target = Target(str(stage.topology.ipv4(HOST)), 22, stage.ssh_key, stage.known_hosts)
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[name](stage, target, Path(folder), given)


def prepare(stage: Any, target: Target, work: Path, given: argparse.Namespace) -> None:
    """Roll out to many hosts that need nothing, and print a line for each run."""
    heads = (
        "run", "wall s", "machine CPU s", "controller CPU s", "CPU s per host",
        "of which start-up", "memory MiB", "turns per host", "KiB per host",
    )  # fmt: skip
    print(f"\n{given.hosts} hosts\n\n| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    with many_hosts(target, given.hosts, rtt_s=given.rtt, folder=work) as hosts:
        pins = work / "known_hosts"
        pins.write_text("".join(login.known_hosts.read_text() for login in hosts.logins))
        order = {
            "site_file": str(stage.site_file),
            "known_hosts": str(pins),
            "ports": [login.port for login in hosts.logins],
        }
        for number in range(1, given.runs + 1):
            print("| " + " | ".join([f"{number}", *run(order, hosts)]) + " |", flush=True)


def run(order: dict[str, Any], hosts: ManyHosts) -> list[str]:
    """Return the cells of a run. Raises RuntimeError when a host was not left alone."""
    hosts.reset()
    used_s = machine_cpu_s()
    done = subprocess.run(
        [sys.executable, "-m", "bench.rollout.controller", json.dumps(order)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    cost: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    events, counts = [json.loads(line) for line in done.stdout.splitlines()], hosts.counts()
    alone = [event for event in events if event["event"] == "host_state" and event["state"] == "idle"]
    if cost["code"] or len(alone) != len(counts):
        raise RuntimeError(f"exit {cost['code']}, {len(alone)} left alone: {done.stdout[-2000:]}")
    size = sum(count.bytes_up + count.bytes_down for count in counts)
    turns = sorted(count.turns for count in counts)
    return [
        f"{cost['wall_s']:.1f}", f"{machine_cpu_s() - used_s:.0f}", f"{cost['cpu_s']:.2f}",
        f"{cost['cpu_s'] / len(counts):.3f}", f"{cost['start_cpu_s']:.2f}",
        f"{cost['memory_kib'] / 1024:.0f}", f"{turns[len(turns) // 2]}", f"{size / len(counts) / 1024:.0f}",
    ]  # fmt: skip


def machine_cpu_s() -> float:
    """Return the processor time that the whole machine has used: hosts, proxies, controller."""
    user, nice, system, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def cut_over(stage: Any, target: Target, work: Path, given: argparse.Namespace) -> None:
    """Roll out releases to one host."""
    found = cut_overs(stage, target, rtt_s=given.rtt, folder=work, runs=given.runs)
    beyond = sorted(each.whole_s - each.restart_s for each in found)
    restart = max(each.restart_s for each in found)
    words = f"{beyond[-1]:.2f} (best {beyond[0]:.2f}), and up to {restart:.2f} for the restart"
    print(f"\nderpfleet, a cut-over with its proof, beyond the restart: {words} s", flush=True)


def peers(stage: Any, target: Target, _: Path, given: argparse.Namespace) -> None:
    """Let the peers find nothing to do on the host."""
    print()
    for tool, seconds in peers_s(stage, target, rtt_s=given.rtt, noops=2).items():
        print(f"{tool}, nothing to do: {seconds:.2f} s", flush=True)


PARTS = {"prepare": prepare, "cut-over": cut_over, "peers": peers}

if __name__ == "__main__":
    main()
