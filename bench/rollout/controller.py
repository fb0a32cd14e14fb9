"""The controller of `bench.rollout`, alone in its process: `python -m bench.rollout.controller
JSON`.

It is `invoke rollout` for a site of many hosts that are alike. Its events go to standard output,
its cost goes to standard error as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import inventory
from engine.report import Report
from fleet.rollout import rollout
from fleet.shared.fleet import Fleet
from inventory.model import Site


def roll_out(site_file: str, known_hosts: str, ports: list[int]) -> None:
    """Roll out to a host behind each port of 127.0.0.1, all like the one of the site file."""
    start_cpu_s, began = time.process_time(), time.monotonic()
    site = many(inventory.load(Path(site_file)), known_hosts, ports)
    with Report(json_lines=True) as report:
        fleet = Fleet(site, report)
        code = rollout(fleet, list(site.hosts.values()), site.rollout, wait_s=0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "code": code,
        "wall_s": time.monotonic() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "start_cpu_s": start_cpu_s,
        "memory_kib": usage.ru_maxrss,
    }
    print(json.dumps(cost), file=sys.stderr)


def many(site: Site, known_hosts: str, ports: list[int]) -> Site:
    """Return the site with its first host as often as there are ports."""
    [one, *_] = site.hosts.values()

    def copy(number: int, port: int) -> Any:
        ssh = one.ssh.model_copy(update={"address": "127.0.0.1", "port": port})
        return one.model_copy(update={"name": f"host{number}", "ssh": ssh})

    hosts = {host.name: host for host in (copy(*pair) for pair in enumerate(ports, start=1))}
    return site.model_copy(update={"hosts": hosts, "known_hosts": known_hosts})


if __name__ == "__main__":
    roll_out(**json.loads(sys.argv[1]))
