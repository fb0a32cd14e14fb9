"""`python -m bench.plan`: processor time to compile the plan of a host, by distribution.

The same site file, with the facts of each system (`tests/roles/cases/`), in turn. Compiled is all
from facts to the ordered plan, with the refusals and warnings.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

import roles
from engine.plan import compile_plan
from tests.roles.cases import load, shipment

SYSTEMS = {"Debian 12": "bare", "Ubuntu 24.04": "ubuntu-24.04", "Rocky Linux 9.6": "el9"}


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.plan", description="compile plans")
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    taken: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    sizes = {system: compiled(case)[0] for system, case in SYSTEMS.items()}
    for _ in range(rounds):
        for system, case in SYSTEMS.items():
            taken[system].append(compiled(case)[1])
    python, load_average = sys.version.split()[0], os.getloadavg()[0]
    print(f"Medians of {rounds} rounds in turn; Python {python}, load average {load_average:.1f}\n")
    print("| host | resources | CPU ms | of Debian's |\n| --- | --- | --- | --- |")
    medians = {system: statistics.median(times) for system, times in taken.items()}
    first = next(iter(medians.values()))
    for system, median in medians.items():
        print(f"| {system} | {sizes[system]} | {median * 1000:.2f} | {median / first:.2f} |")


def compiled(case: str) -> tuple[int, float]:
    """Compile the plan of a case; return how many resources it has, and the processor seconds."""
    host, site, facts = load(case)
    ship = shipment(host)
    began = time.process_time()
    roles.refusals(host, site, facts)
    roles.warnings(host, site, facts)
    plan = compile_plan(roles.compile_host(host, site, facts, ship), mode="check")
    return len(plan.resources), time.process_time() - began


if __name__ == "__main__":
    main()
