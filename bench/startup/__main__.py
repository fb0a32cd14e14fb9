"""`python -m bench.startup`: wall and processor time of `invoke --list`.

Beside it are Python's own start, and that of invoke with one empty verb.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from inventory.checkout import CHECKOUT


def main() -> None:
    """Run the program: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.startup", description="the controller's own start-up"
    )
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    invoke = str(Path(sys.executable).with_name("invoke"))
    with tempfile.TemporaryDirectory() as empty:
        Path(empty, "tasks.py").write_text("from invoke import task\n\n@task\ndef nothing(_):\n    pass\n")
        commands = {
            "`python -c pass`": ([sys.executable, "-c", "pass"], empty),
            "`invoke --list`, one empty verb": ([invoke, "--list"], empty),
            "`invoke --list`, ours": ([invoke, "--list"], str(CHECKOUT)),
        }
        load = f"load average {os.getloadavg()[0]:.1f}"
        print(
            f"Medians of {runs} runs in turn; python {sys.version.split()[0]}, "
            f"{os.cpu_count()} cores, {load}\n"
        )
        print("| command | wall s | slowest | CPU s |\n| --- | --- | --- | --- |")
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, (argv, folder) in commands.items():
                taken[name].append(timed(argv, folder))
        for name, times in taken.items():
            walls, cpus = zip(*times, strict=True)
            print(
                f"| {name} | {statistics.median(walls):.3f} | {max(walls):.3f} | "
                f"{statistics.median(cpus):.3f} |"
            )


def timed(argv: list[str], folder: str) -> tuple[float, float]:
    """Run a command; return its (wall, processor) seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(argv, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    wall_s, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
