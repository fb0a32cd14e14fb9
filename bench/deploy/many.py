"""`python -m bench.deploy.many`: a no-op of the 26 resources on fifty hosts at once.

They are run by one controller, as `invoke check` does. The hosts are fifty sshd on one real host,
each with its own /run/derpfleet and /var/lib/derpfleet (lock and journal), each behind its own
delaying proxy. They share that host's processor with the controller, so the wall time is an upper
bound; the controller's processor time and memory are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.deploy.many_hosts import many_hosts
from bench.deploy.stage import run_in_lab
from bench.deploy.tools import Target, add_login
from bench.deploy.wanted import RESET, write_contents
from bench.environment import CACHE
from inventory.checkout import CHECKOUT
from lab.delay import ProxyCounts, parse_seconds


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.deploy.many", description="a no-op on many hosts at once"
    )
    add_login(parser)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rtt", type=parse_seconds, default=0.1)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    if not given.address:
        sys.exit(run_in_lab("bench.deploy.many", sys.argv[1:]))
    target = Target(given.address, given.port, given.key, given.known_hosts)
    write_contents(CACHE / "contents")
    print(
        f"{given.hosts} hosts, round trip {given.rtt * 1000:.0f} ms, {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[2]:.1f}\n"
    )
    heads = (
        "run", "wall s", "controller CPU s", "CPU s per host", "of which start-up", "memory MiB",
        "turns per host", "KiB per host",
    )
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(subprocess.run, [*target.ssh(), "sh"], input=RESET, text=True, check=False)
        hosts = stack.enter_context(many_hosts(target, given.hosts, rtt_s=given.rtt, folder=work))
        logins = hosts.logins
        order = [[one.address, one.port, str(one.key), str(one.known_hosts)] for one in logins]
        controller = [sys.executable, "-m", "bench.deploy.controller"]
        for run in range(given.runs + 1):  # run 0 makes everything, on one host for all
            hosts.reset()
            done = subprocess.run(
                [*controller, json.dumps(order if run else order[:1])],
                cwd=CHECKOUT,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            if run:
                cells = row(run, json.loads(done.stdout), hosts.counts())
                print("| " + " | ".join(cells) + " |", flush=True)


def row(run: int, cost: dict[str, Any], counts: list[ProxyCounts]) -> list[str]:
    """Return the cells of one run's line. Raises RuntimeError when the no-op changed something."""
    if cost["changed"]:
        raise RuntimeError(f"a no-op changed {cost['changed']} resources")
    hosts, size = len(counts), sum(count.bytes_up + count.bytes_down for count in counts)
    return [
        f"{run}", f"{cost['wall_s']:.1f}", f"{cost['cpu_s']:.2f}", f"{cost['cpu_s'] / hosts:.3f}",
        f"{cost['start_cpu_s']:.2f}", f"{cost['memory_kib'] / 1024:.0f}",
        f"{max(count.turns for count in counts)}", f"{size / hosts / 1024:.0f}",
    ]


if __name__ == "__main__":
    main()
