"""The controller of `bench.deploy.many`, alone in its process: `python -m bench.deploy.controller
JSON`."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.deploy.ours import login_to, resources
from bench.environment import CACHE
from engine.run import Job, Verb, converge
from fleet.shared.parallel import PARALLEL


def converge_all(hosts: list[tuple[str, int, str, str]]) -> None:
    """Run a no-op of the 26 resources on each (address, port, key, known_hosts); print its cost as
    JSON."""
    start_cpu_s, began = time.process_time(), time.monotonic()
    wanted = resources(CACHE / "contents")
    job = Job(verb=Verb.DEPLOY, plan=lambda _: wanted)
    with tempfile.TemporaryDirectory() as runs, ThreadPoolExecutor(PARALLEL) as pool:
        futures = [
            pool.submit(converge, login_to(f"host{host[1]}", *host), job, runs=Path(runs))
            for host in hosts
        ]
        outcomes = [future.result() for future in futures]
    if failed := [failure for outcome in outcomes for failure in outcome.failures]:
        raise RuntimeError(f"{failed[0].id}: {failed[0].what} {failed[0].why}")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "wall_s": time.monotonic() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "start_cpu_s": start_cpu_s,
        "memory_kib": usage.ru_maxrss,
        "changed": sum(outcome.counts["changed"] for outcome in outcomes),
    }
    print(json.dumps(cost))


if __name__ == "__main__":
    converge_all(json.loads(sys.argv[1]))
